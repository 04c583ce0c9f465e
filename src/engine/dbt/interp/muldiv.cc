// MUL, IMUL, DIV, IDIV, MULX. The host divides only what it can without a trap.
#include "engine/dbt/interp/extensions.h"
#include "engine/dbt/interp/handlers.h"
#include "engine/dbt/interp/ops.h"

namespace bulkhead::engine::dbt {
namespace {

struct Pair {
  u64 low, high;
};

// One-operand multiply or divide on RDX:RAX at one width; 8-bit forms use AX alone (then `high` passes through). LAHF
// needs RAX, so the result moves aside first, which changes no flag.
#define BH_WIDE(Name, text)                                       \
  struct Name {                                                   \
    template <class T>                                            \
    static Pair run(Pair ax_dx, T b, HostFlags& flags) {          \
      u64 low = ax_dx.low, high = ax_dx.high;                     \
      __asm__(BH_FLAGS_IN "mov %[low], %%rax\n\t" text            \
                          " %[b]\n\t"                             \
                          "mov %%rax, %[low]" BH_FLAGS_OUT        \
              : [low] "+&r"(low), "+&d"(high), "+&a"(flags.image) \
              : [b] "q"(b)                                        \
              : "cc");                                            \
      return {low, high};                                         \
    }                                                             \
  };
BH_WIDE(Mul, "mul")
BH_WIDE(Imul, "imul")
BH_WIDE(Div, "div")
BH_WIDE(Idiv, "idiv")

template <class T>
void commit_pair(CpuState& s, Pair result) {
  if constexpr (sizeof(T) == 1) {
    write_gpr<u16>(s, kRax, static_cast<u16>(result.low));
  } else {
    write_gpr<T>(s, kRax, static_cast<T>(result.low));
    write_gpr<T>(s, kRdx, static_cast<T>(result.high));
  }
}

template <class Op>
StepResult multiply(Cpu& cpu, const Insn& insn) {
  return by_size(insn.operands[0].size, [&]<class T>(T) {
    const T b = read_operand<T>(cpu, insn, 0);
    HostFlags flags{cpu.s.rflags};
    commit_pair<T>(cpu.s, Op::run(Pair{cpu.s.gpr[kRax], cpu.s.gpr[kRdx]}, b, flags));
    flags.commit(cpu.s);
    return next(cpu, insn);
  });
}

// The dividend, zero-extended.
template <class T>
u128 dividend(const CpuState& s) {
  if constexpr (sizeof(T) == 1)
    return static_cast<u16>(s.gpr[kRax]);
  else
    return u128{static_cast<T>(s.gpr[kRdx])} << (8 * sizeof(T)) | static_cast<T>(s.gpr[kRax]);
}

template <class T>
bool unsigned_quotient_fits(const CpuState& s, T divisor) {
  return divisor != 0 && static_cast<T>(dividend<T>(s) >> (8 * sizeof(T))) < divisor;
}

// |dividend| / |divisor| must be at most 2^(n-1), or 2^(n-1)-1 for a positive quotient.
template <class T>
bool signed_quotient_fits(const CpuState& s, T divisor) {
  constexpr unsigned kBits = 8 * sizeof(T);
  if (divisor == 0) return false;
  const u128 raw = dividend<T>(s);
  const bool negative = (raw >> (2 * kBits - 1)) & 1;
  const bool divisor_negative = (divisor >> (kBits - 1)) & 1;
  const u128 mask = ~u128{0} >> (128 - 2 * kBits);
  const u128 magnitude = negative ? (~raw + 1) & mask : raw;
  const T divisor_magnitude = divisor_negative ? static_cast<T>(~divisor + 1) : divisor;
  // quotient <= limit  <=>  magnitude < (limit + 1) * divisor: at most 2^63+1 times 2^63, so no overflow.
  const u128 limit = (u128{1} << (kBits - 1)) - (negative == divisor_negative ? 1 : 0);
  return magnitude < (limit + 1) * divisor_magnitude;
}

template <class Op, bool kSigned>
StepResult divide(Cpu& cpu, const Insn& insn) {
  return by_size(insn.operands[0].size, [&]<class T>(T) {
    const T b = read_operand<T>(cpu, insn, 0);
    if (!(kSigned ? signed_quotient_fits<T>(cpu.s, b) : unsigned_quotient_fits<T>(cpu.s, b))) cpu.raise(kDe);
    HostFlags flags{cpu.s.rflags};
    commit_pair<T>(cpu.s, Op::run(Pair{cpu.s.gpr[kRax], cpu.s.gpr[kRdx]}, b, flags));
    flags.commit(cpu.s);
    return next(cpu, insn);
  });
}

template <class T>
T imul_pair(T a, T b, HostFlags& flags) {
  __asm__(BH_FLAGS_IN "imul %[b], %[a]" BH_FLAGS_OUT : [a] "+r"(a), "+a"(flags.image) : [b] "r"(b) : "cc");
  return a;
}

}  // namespace

StepResult op_mul(Cpu& cpu, const Insn& insn) { return multiply<Mul>(cpu, insn); }
StepResult op_div(Cpu& cpu, const Insn& insn) { return divide<Div, false>(cpu, insn); }
StepResult op_idiv(Cpu& cpu, const Insn& insn) { return divide<Idiv, true>(cpu, insn); }

// F6/F7: one operand. 0F AF: dest *= source. 69/6B: dest = source * imm.
StepResult op_imul(Cpu& cpu, const Insn& insn) {
  if (insn.opcode == 0xf6 || insn.opcode == 0xf7) return multiply<Imul>(cpu, insn);
  const unsigned left = insn.opcode == 0xaf ? 0 : 1;
  return by_wide_size(insn.operands[0].size, [&]<class T>(T) {
    const T a = read_operand<T>(cpu, insn, left);
    const T b = left == 0 ? read_operand<T>(cpu, insn, 1) : static_cast<T>(insn.imm);
    HostFlags flags{cpu.s.rflags};
    write_operand<T>(cpu, insn, 0, imul_pair(a, b, flags));
    flags.commit(cpu.s);
    return next(cpu, insn);
  });
}

// MULX high, low, source: RDX times source; when both destinations are one register it holds the high half.
StepResult op_mulx(Cpu& cpu, const Insn& insn) {
  require_vex_extension(cpu, Extension::kBmi2);
  return by_wide_size(insn.operands[0].size, [&]<class T>(T) {
    const u128 product = u128{read_operand<T>(cpu, insn, 2)} * read_gpr<T>(cpu.s, kRdx);
    write_operand<T>(cpu, insn, 1, static_cast<T>(product));
    write_operand<T>(cpu, insn, 0, static_cast<T>(product >> (8 * sizeof(T))));
    return next(cpu, insn);
  });
}

}  // namespace bulkhead::engine::dbt
