// Shifts and rotates. A count of zero leaves the flags alone because the host does.
#include <bit>
#include <type_traits>

#include "engine/dbt/interp/extensions.h"
#include "engine/dbt/interp/handlers.h"
#include "engine/dbt/interp/ops.h"

namespace bulkhead::engine::dbt {
namespace {

#define BH_SHIFT(Name, text)                                                                                     \
  struct Name {                                                                                                  \
    template <class T>                                                                                           \
    static T run(T a, u8 count, HostFlags& flags) {                                                              \
      __asm__(BH_FLAGS_IN text " %%cl, %[a]" BH_FLAGS_OUT : [a] "+q"(a), "+a"(flags.image) : "c"(count) : "cc"); \
      return a;                                                                                                  \
    }                                                                                                            \
  };
BH_SHIFT(Rol, "rol")
BH_SHIFT(Ror, "ror")
BH_SHIFT(Rcl, "rcl")
BH_SHIFT(Rcr, "rcr")
BH_SHIFT(Shl, "shl")
BH_SHIFT(Shr, "shr")
BH_SHIFT(Sar, "sar")

#define BH_DOUBLE_SHIFT(Name, text)                             \
  struct Name {                                                 \
    template <class T>                                          \
    static T run(T a, T b, u8 count, HostFlags& flags) {        \
      __asm__(BH_FLAGS_IN text " %%cl, %[b], %[a]" BH_FLAGS_OUT \
              : [a] "+r"(a), "+a"(flags.image)                  \
              : [b] "r"(b), "c"(count)                          \
              : "cc");                                          \
      return a;                                                 \
    }                                                           \
  };
BH_DOUBLE_SHIFT(Shld, "shld")
BH_DOUBLE_SHIFT(Shrd, "shrd")

// D0/D1 shift by one, D2/D3 by CL, C0/C1 by the immediate.
u8 shift_count(const Cpu& cpu, const Insn& insn) {
  switch (insn.opcode) {
    case 0xd0:
    case 0xd1:
      return 1;
    case 0xd2:
    case 0xd3:
      return static_cast<u8>(cpu.s.gpr[kRcx]);
    default:
      return static_cast<u8>(insn.imm);
  }
}

template <class Op>
StepResult shift(Cpu& cpu, const Insn& insn) {
  return by_size(insn.operands[0].size, [&]<class T>(T) {
    const u8 count = shift_count(cpu, insn);
    HostFlags flags{cpu.s.rflags};
    modify_operand<T>(cpu, insn, 0, [&](T a) {
      flags = HostFlags{cpu.s.rflags};
      return Op::run(a, count, flags);
    });
    flags.commit(cpu.s);
    return next(cpu, insn);
  });
}

template <class Op>
StepResult double_shift(Cpu& cpu, const Insn& insn) {
  return by_wide_size(insn.operands[0].size, [&]<class T>(T) {
    const T b = read_operand<T>(cpu, insn, 1);
    const u8 count = static_cast<u8>((insn.opcode & 1) ? cpu.s.gpr[kRcx] : insn.imm);  // A5, AD: by CL
    HostFlags flags{cpu.s.rflags};
    modify_operand<T>(cpu, insn, 0, [&](T a) {
      flags = HostFlags{cpu.s.rflags};
      return Op::run(a, b, count, flags);
    });
    flags.commit(cpu.s);
    return next(cpu, insn);
  });
}

// SARX, SHLX, SHRX: operands dest, source, count; no flags.
template <class F>
StepResult shift_x(Cpu& cpu, const Insn& insn, F f) {
  require_vex_extension(cpu, Extension::kBmi2);
  return by_wide_size(insn.operands[0].size, [&]<class T>(T) {
    const T source = read_operand<T>(cpu, insn, 1);
    const unsigned count = static_cast<unsigned>(read_operand<T>(cpu, insn, 2) & (8 * sizeof(T) - 1));
    write_operand<T>(cpu, insn, 0, f(source, count));
    return next(cpu, insn);
  });
}

}  // namespace

StepResult op_rol(Cpu& cpu, const Insn& insn) { return shift<Rol>(cpu, insn); }
StepResult op_ror(Cpu& cpu, const Insn& insn) { return shift<Ror>(cpu, insn); }
StepResult op_rcl(Cpu& cpu, const Insn& insn) { return shift<Rcl>(cpu, insn); }
StepResult op_rcr(Cpu& cpu, const Insn& insn) { return shift<Rcr>(cpu, insn); }
StepResult op_shl(Cpu& cpu, const Insn& insn) { return shift<Shl>(cpu, insn); }
StepResult op_shr(Cpu& cpu, const Insn& insn) { return shift<Shr>(cpu, insn); }
StepResult op_sar(Cpu& cpu, const Insn& insn) { return shift<Sar>(cpu, insn); }
StepResult op_shld(Cpu& cpu, const Insn& insn) { return double_shift<Shld>(cpu, insn); }
StepResult op_shrd(Cpu& cpu, const Insn& insn) { return double_shift<Shrd>(cpu, insn); }

StepResult op_shlx(Cpu& cpu, const Insn& insn) {
  return shift_x(cpu, insn, []<class T>(T a, unsigned count) { return static_cast<T>(a << count); });
}
StepResult op_shrx(Cpu& cpu, const Insn& insn) {
  return shift_x(cpu, insn, []<class T>(T a, unsigned count) { return static_cast<T>(a >> count); });
}
StepResult op_sarx(Cpu& cpu, const Insn& insn) {
  return shift_x(cpu, insn, []<class T>(T a, unsigned count) {
    return static_cast<T>(static_cast<std::make_signed_t<T>>(a) >> count);
  });
}
StepResult op_rorx(Cpu& cpu, const Insn& insn) {
  require_vex_extension(cpu, Extension::kBmi2);
  return by_wide_size(insn.operands[0].size, [&]<class T>(T) {
    const T source = read_operand<T>(cpu, insn, 1);
    write_operand<T>(cpu, insn, 0, std::rotr(source, static_cast<int>(insn.imm & (8 * sizeof(T) - 1))));
    return next(cpu, insn);
  });
}

}  // namespace bulkhead::engine::dbt
