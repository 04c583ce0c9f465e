// ADD to CMP, INC, DEC, NEG, NOT, XADD, XCHG.
#include "engine/dbt/interp/handlers.h"
#include "engine/dbt/interp/ops.h"

namespace bulkhead::engine::dbt {
namespace {

// One host instruction on the guest's operands and flags, any operand size.
#define BH_BINARY(Name, text)                                                                                    \
  struct Name {                                                                                                  \
    template <class T>                                                                                           \
    static T run(T a, T b, HostFlags& flags) {                                                                   \
      __asm__(BH_FLAGS_IN text " %[b], %[a]" BH_FLAGS_OUT : [a] "+q"(a), "+a"(flags.image) : [b] "q"(b) : "cc"); \
      return a;                                                                                                  \
    }                                                                                                            \
  };
#define BH_UNARY(Name, text)                                                                    \
  struct Name {                                                                                 \
    template <class T>                                                                          \
    static T run(T a, HostFlags& flags) {                                                       \
      __asm__(BH_FLAGS_IN text " %[a]" BH_FLAGS_OUT : [a] "+q"(a), "+a"(flags.image) : : "cc"); \
      return a;                                                                                 \
    }                                                                                           \
  };
BH_BINARY(Add, "add")
BH_BINARY(Or, "or")
BH_BINARY(Adc, "adc")
BH_BINARY(Sbb, "sbb")
BH_BINARY(And, "and")
BH_BINARY(Sub, "sub")
BH_BINARY(Xor, "xor")
BH_UNARY(Inc, "inc")
BH_UNARY(Dec, "dec")
BH_UNARY(Neg, "neg")
BH_UNARY(Not, "not")

template <class Op>
StepResult binary(Cpu& cpu, const Insn& insn) {
  return by_size(insn.operands[0].size, [&]<class T>(T) {
    const T b = read_operand<T>(cpu, insn, 1);
    HostFlags flags{cpu.s.rflags};
    modify_operand<T>(cpu, insn, 0, [&](T a) {
      flags = HostFlags{cpu.s.rflags};
      return Op::run(a, b, flags);
    });
    flags.commit(cpu.s);
    return next(cpu, insn);
  });
}

// CMP and TEST.
template <class Op>
StepResult compare(Cpu& cpu, const Insn& insn) {
  return by_size(insn.operands[0].size, [&]<class T>(T) {
    const T a = read_operand<T>(cpu, insn, 0);
    const T b = read_operand<T>(cpu, insn, 1);
    HostFlags flags{cpu.s.rflags};
    Op::run(a, b, flags);
    flags.commit(cpu.s);
    return next(cpu, insn);
  });
}

template <class Op>
StepResult unary(Cpu& cpu, const Insn& insn) {
  return by_size(insn.operands[0].size, [&]<class T>(T) {
    HostFlags flags{cpu.s.rflags};
    modify_operand<T>(cpu, insn, 0, [&](T a) {
      flags = HostFlags{cpu.s.rflags};
      return Op::run(a, flags);
    });
    flags.commit(cpu.s);
    return next(cpu, insn);
  });
}

}  // namespace

StepResult op_add(Cpu& cpu, const Insn& insn) { return binary<Add>(cpu, insn); }
StepResult op_or(Cpu& cpu, const Insn& insn) { return binary<Or>(cpu, insn); }
StepResult op_adc(Cpu& cpu, const Insn& insn) { return binary<Adc>(cpu, insn); }
StepResult op_sbb(Cpu& cpu, const Insn& insn) { return binary<Sbb>(cpu, insn); }
StepResult op_and(Cpu& cpu, const Insn& insn) { return binary<And>(cpu, insn); }
StepResult op_sub(Cpu& cpu, const Insn& insn) { return binary<Sub>(cpu, insn); }
StepResult op_xor(Cpu& cpu, const Insn& insn) { return binary<Xor>(cpu, insn); }
StepResult op_cmp(Cpu& cpu, const Insn& insn) { return compare<Sub>(cpu, insn); }
StepResult op_test(Cpu& cpu, const Insn& insn) { return compare<And>(cpu, insn); }
StepResult op_inc(Cpu& cpu, const Insn& insn) { return unary<Inc>(cpu, insn); }
StepResult op_dec(Cpu& cpu, const Insn& insn) { return unary<Dec>(cpu, insn); }
StepResult op_neg(Cpu& cpu, const Insn& insn) { return unary<Neg>(cpu, insn); }
StepResult op_not(Cpu& cpu, const Insn& insn) { return unary<Not>(cpu, insn); }

StepResult op_xadd(Cpu& cpu, const Insn& insn) {
  return by_size(insn.operands[0].size, [&]<class T>(T) {
    const T addend = read_operand<T>(cpu, insn, 1);
    HostFlags flags{cpu.s.rflags};
    T old{}, sum{};
    const auto add = [&](T a) {
      flags = HostFlags{cpu.s.rflags};
      old = a;
      return sum = Add::run(a, addend, flags);
    };
    modify_operand<T>(cpu, insn, 0, add);
    write_operand<T>(cpu, insn, 1, old);
    if (insn.operands[0].kind == OperandKind::kRegister)
      write_operand<T>(cpu, insn, 0, sum);  // XADD r, r: the sum wins
    flags.commit(cpu.s);
    return next(cpu, insn);
  });
}

// With memory always locked, prefix or not.
StepResult op_xchg(Cpu& cpu, const Insn& insn) {
  return by_size(insn.operands[0].size, [&]<class T>(T) {
    const unsigned memory = insn.operands[1].kind == OperandKind::kMemory ? 1 : 0;
    const T value = read_operand<T>(cpu, insn, 1 - memory);
    T old{};
    const auto exchange = [&](T a) {
      old = a;
      return value;
    };
    if (insn.operands[memory].kind == OperandKind::kMemory)
      modify_memory<T>(cpu, cpu.linear_of(insn, sizeof(T), Access::kWrite), true, exchange);
    else
      modify_operand<T>(cpu, insn, memory, exchange);
    write_operand<T>(cpu, insn, 1 - memory, old);
    return next(cpu, insn);
  });
}

}  // namespace bulkhead::engine::dbt
