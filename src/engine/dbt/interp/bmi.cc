// BMI1 and BMI2 without the shifts (shift.cc) and MULX (muldiv.cc).
#include "engine/dbt/interp/extensions.h"
#include "engine/dbt/interp/handlers.h"
#include "engine/dbt/interp/ops.h"

namespace bulkhead::engine::dbt {
namespace {

// AT&T operand order: last is the destination.
#define BH_BMI2(Name, text)                                                   \
  struct Name {                                                               \
    template <class T>                                                        \
    static T run(T first, T second, HostFlags& flags) {                       \
      T result;                                                               \
      __asm__(BH_FLAGS_IN text " %[second], %[first], %[result]" BH_FLAGS_OUT \
              : [result] "=&r"(result), "+a"(flags.image)                     \
              : [first] "r"(first), [second] "r"(second)                      \
              : "cc");                                                        \
      return result;                                                          \
    }                                                                         \
  };
#define BH_BMI1(Name, text)                                         \
  struct Name {                                                     \
    template <class T>                                              \
    static T run(T source, HostFlags& flags) {                      \
      T result;                                                     \
      __asm__(BH_FLAGS_IN text " %[source], %[result]" BH_FLAGS_OUT \
              : [result] "=&r"(result), "+a"(flags.image)           \
              : [source] "r"(source)                                \
              : "cc");                                              \
      return result;                                                \
    }                                                               \
  };
BH_BMI2(Andn, "andn")
BH_BMI2(Bextr, "bextr")
BH_BMI2(Bzhi, "bzhi")
BH_BMI2(Pdep, "pdep")
BH_BMI2(Pext, "pext")
BH_BMI1(Blsi, "blsi")
BH_BMI1(Blsmsk, "blsmsk")
BH_BMI1(Blsr, "blsr")

// dest, first, second in Intel order.
template <class Op, class T>
StepResult ternary_sized(Cpu& cpu, const Insn& insn) {
  const T first = read_operand<T>(cpu, insn, 1), second = read_operand<T>(cpu, insn, 2);
  HostFlags flags{cpu.s.rflags};
  write_operand<T>(cpu, insn, 0, Op::run(first, second, flags));
  flags.commit(cpu.s);
  return next(cpu, insn);
}
template <class Op, class T>
StepResult binary_sized(Cpu& cpu, const Insn& insn) {
  const T source = read_operand<T>(cpu, insn, 1);
  HostFlags flags{cpu.s.rflags};
  write_operand<T>(cpu, insn, 0, Op::run(source, flags));
  flags.commit(cpu.s);
  return next(cpu, insn);
}

template <class Op>
StepResult ternary(Cpu& cpu, const Insn& insn, Extension extension) {
  require_vex_extension(cpu, extension);
  return insn.operands[0].size == 8 ? ternary_sized<Op, u64>(cpu, insn) : ternary_sized<Op, u32>(cpu, insn);
}
template <class Op>
StepResult binary(Cpu& cpu, const Insn& insn) {
  require_vex_extension(cpu, Extension::kBmi1);
  return insn.operands[0].size == 8 ? binary_sized<Op, u64>(cpu, insn) : binary_sized<Op, u32>(cpu, insn);
}

}  // namespace

StepResult op_andn(Cpu& cpu, const Insn& insn) { return ternary<Andn>(cpu, insn, Extension::kBmi1); }
StepResult op_bextr(Cpu& cpu, const Insn& insn) {
  if (insn.operands[2].kind == OperandKind::kImmediate) cpu.raise(kUd);  // the XOP form belongs to TBM
  return ternary<Bextr>(cpu, insn, Extension::kBmi1);
}
StepResult op_bzhi(Cpu& cpu, const Insn& insn) { return ternary<Bzhi>(cpu, insn, Extension::kBmi2); }
StepResult op_pdep(Cpu& cpu, const Insn& insn) { return ternary<Pdep>(cpu, insn, Extension::kBmi2); }
StepResult op_pext(Cpu& cpu, const Insn& insn) { return ternary<Pext>(cpu, insn, Extension::kBmi2); }
StepResult op_blsi(Cpu& cpu, const Insn& insn) { return binary<Blsi>(cpu, insn); }
StepResult op_blsmsk(Cpu& cpu, const Insn& insn) { return binary<Blsmsk>(cpu, insn); }
StepResult op_blsr(Cpu& cpu, const Insn& insn) { return binary<Blsr>(cpu, insn); }

}  // namespace bulkhead::engine::dbt
