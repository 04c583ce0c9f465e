// CMPXCHG, CMPXCHG8B, CMPXCHG16B. The destination is always written, if only with its old value.
#include "engine/dbt/interp/extensions.h"
#include "engine/dbt/interp/handlers.h"
#include "engine/dbt/interp/ops.h"

namespace bulkhead::engine::dbt {
namespace {

// On registers the host does it, so that the upper halves come out as the host's do.
template <class T>
void exchange_registers(CpuState& s, const Operand& dest, T source) {
  if constexpr (sizeof(T) <= 2) {
    const T old = read_reg<T>(s, dest), accumulator = read_gpr<T>(s, kRax);
    set_compare_flags(s, accumulator, old);
    if (old == accumulator)
      write_reg<T>(s, dest, source);
    else
      write_gpr<T>(s, kRax, old);
  } else {
    HostFlags flags{s.rflags};
    u64 dest64 = s.gpr[dest.reg], accumulator = s.gpr[kRax];
    const u64 source64 = source;
    if constexpr (sizeof(T) == 4)
      __asm__(BH_FLAGS_IN "mov %[acc], %%rax\n\tcmpxchg %k[b], %k[a]\n\tmov %%rax, %[acc]" BH_FLAGS_OUT
              : [a] "+&r"(dest64), [acc] "+&r"(accumulator), "+&a"(flags.image)
              : [b] "r"(source64)
              : "cc");
    else
      __asm__(BH_FLAGS_IN "mov %[acc], %%rax\n\tcmpxchg %[b], %[a]\n\tmov %%rax, %[acc]" BH_FLAGS_OUT
              : [a] "+&r"(dest64), [acc] "+&r"(accumulator), "+&a"(flags.image)
              : [b] "r"(source64)
              : "cc");
    s.gpr[kRax] = accumulator;
    // With the accumulator as destination they are equal, and the destination is what was written.
    s.gpr[dest.reg] = dest64;
    flags.commit(s);
  }
}

template <class T>
void exchange_memory(Cpu& cpu, const Insn& insn, T source) {
  const T accumulator = read_gpr<T>(cpu.s, kRax);
  T old{};
  modify_operand<T>(cpu, insn, 0, [&](T a) {
    old = a;
    return a == accumulator ? source : a;
  });
  set_compare_flags(cpu.s, accumulator, old);
  if (old != accumulator) write_gpr<T>(cpu.s, kRax, old);
}

void set_zf(CpuState& s, bool equal) { s.rflags = (s.rflags & ~kZf) | (equal ? kZf : 0); }

struct Exchange16 {
  u128 expected, desired, old;
};
void exchange16_plain(void* context, Cpu& cpu, u64 linear) {
  auto& x = *static_cast<Exchange16*>(context);
  x.old = u128{cpu.load(linear + 8, 8)} << 64 | cpu.load(linear, 8);
  const u128 value = x.old == x.expected ? x.desired : x.old;
  cpu.store(linear, 8, static_cast<u64>(value));
  cpu.store(linear + 8, 8, static_cast<u64>(value >> 64));
}

}  // namespace

StepResult op_cmpxchg(Cpu& cpu, const Insn& insn) {
  return by_size(insn.operands[0].size, [&]<class T>(T) {
    const T source = read_operand<T>(cpu, insn, 1);
    if (insn.operands[0].kind == OperandKind::kRegister)
      exchange_registers<T>(cpu.s, insn.operands[0], source);
    else
      exchange_memory<T>(cpu, insn, source);
    return next(cpu, insn);
  });
}

StepResult op_cmpxchg8b(Cpu& cpu, const Insn& insn) {
  CpuState& s = cpu.s;
  const u64 expected = u64{static_cast<u32>(s.gpr[kRdx])} << 32 | static_cast<u32>(s.gpr[kRax]);
  const u64 desired = u64{static_cast<u32>(s.gpr[kRcx])} << 32 | static_cast<u32>(s.gpr[kRbx]);
  u64 old = 0;
  modify_operand<u64>(cpu, insn, 0, [&](u64 a) {
    old = a;
    return a == expected ? desired : a;
  });
  set_zf(s, old == expected);
  if (old != expected) {
    s.gpr[kRax] = static_cast<u32>(old);
    s.gpr[kRdx] = old >> 32;
  }
  return next(cpu, insn);
}

StepResult op_cmpxchg16b(Cpu& cpu, const Insn& insn) {
  require_extension(cpu, Extension::kCmpxchg16b);
  CpuState& s = cpu.s;
  const u64 linear = cpu.linear_of(insn, 16, Access::kWrite);
  if (linear & 15) cpu.raise(kGp, 0);
  Exchange16 x{u128{s.gpr[kRdx]} << 64 | s.gpr[kRax], u128{s.gpr[kRcx]} << 64 | s.gpr[kRbx], 0};
  if (void* host = cpu.atomic_host(linear, 16)) {
    x.old = x.expected;
    compare_exchange(host, x.old, x.desired);
  } else {
    run_locked(cpu, linear, 16, exchange16_plain, &x);
  }
  set_zf(s, x.old == x.expected);
  if (x.old != x.expected) {
    s.gpr[kRax] = static_cast<u64>(x.old);
    s.gpr[kRdx] = static_cast<u64>(x.old >> 64);
  }
  return next(cpu, insn);
}

}  // namespace bulkhead::engine::dbt
