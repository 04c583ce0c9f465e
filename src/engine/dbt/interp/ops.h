// What every handler needs: operands by kind and size, flags in the host's own form, the ways to end an instruction.
#pragma once
#include <Zydis/Mnemonic.h>

#include "base/bits.h"
#include "engine/dbt/cpu/cpu.h"
#include "engine/dbt/interp/locked.h"

namespace bulkhead::engine::dbt {

// ---- ends -----------------------------------------------------------------------------------------------------------
// Outside 64-bit mode EIP is 32 bits wide even in 16-bit code: running off the end of a 64 KiB segment is the limit
// check's #GP at the next fetch, as on hardware, not a wrap.
inline u64 next_rip(const Cpu& cpu, const Insn& insn) {
  const u64 rip = cpu.s.rip + insn.length;
  return insn.mode == CodeSize::k64 ? rip : rip & 0xffffffff;
}
inline StepResult next(Cpu& cpu, const Insn& insn) {
  cpu.s.rip = next_rip(cpu, insn);
  return StepResult::kNext;
}
// The next instruction in sequence, but something changed that translated code depends on.
inline StepResult next_changed(Cpu& cpu, const Insn& insn) {
  cpu.s.rip = next_rip(cpu, insn);
  return StepResult::kBranch;
}

// ---- flags
// ------------------------------------------------------------------------------------------------------------ The
// arithmetic flags as LAHF and SETO leave them: AH in bits 15:8, OF in bit 0. Lives in EAX around one host instruction.
struct HostFlags {
  u32 image;
  explicit HostFlags(u64 rflags) : image{static_cast<u32>(((rflags & 0xd5) << 8) | ((rflags >> 11) & 1))} {}
  u64 rflags() const { return ((image >> 8) & 0xd5) | (u64{image & 1} << 11); }
  void commit(CpuState& s) const { s.rflags = (s.rflags & ~kArithmeticFlags) | rflags(); }
};
#define BH_FLAGS_IN "addb $127, %%al\n\tsahf\n\t"
#define BH_FLAGS_OUT "\n\tseto %%al\n\tlahf"

// What CMP a, b leaves.
template <class T>
void set_compare_flags(CpuState& s, T a, T b) {
  HostFlags flags{s.rflags};
  __asm__("cmp %[b], %[a]" BH_FLAGS_OUT : "+a"(flags.image) : [a] "q"(a), [b] "q"(b) : "cc");
  flags.commit(s);
}

// Condition code 0..15 of Jcc/SETcc/CMOVcc, the low nibble of their opcodes.
inline bool condition(u64 rflags, unsigned code) {
  bool yes = false;
  switch (code >> 1) {
    case 0:
      yes = rflags & kOf;
      break;
    case 1:
      yes = rflags & kCf;
      break;
    case 2:
      yes = rflags & kZf;
      break;
    case 3:
      yes = rflags & (kCf | kZf);
      break;
    case 4:
      yes = rflags & kSf;
      break;
    case 5:
      yes = rflags & kPf;
      break;
    case 6:
      yes = !(rflags & kSf) != !(rflags & kOf);
      break;
    default:
      yes = (rflags & kZf) || (!(rflags & kSf) != !(rflags & kOf));
      break;
  }
  return yes != ((code & 1) != 0);
}

// ---- registers
// ----------------------------------------------------------------------------------------------------------
template <class T>
T read_gpr(const CpuState& s, unsigned reg) {
  return static_cast<T>(s.gpr[reg]);
}
template <class T>
void write_gpr(CpuState& s, unsigned reg, T value) {
  if constexpr (sizeof(T) >= 4)
    s.gpr[reg] = value;  // 32-bit results zero-extend
  else
    s.gpr[reg] = (s.gpr[reg] & ~mask_for_size(sizeof(T))) | value;
}
template <class T>
T read_reg(const CpuState& s, const Operand& operand) {
  if constexpr (sizeof(T) == 1)
    if (operand.reg_class == RegisterClass::kGpr8High) return static_cast<u8>(s.gpr[operand.reg] >> 8);
  return static_cast<T>(s.gpr[operand.reg]);
}
template <class T>
void write_reg(CpuState& s, const Operand& operand, T value) {
  if constexpr (sizeof(T) == 1) {
    if (operand.reg_class == RegisterClass::kGpr8High) {
      s.gpr[operand.reg] = (s.gpr[operand.reg] & ~u64{0xff00}) | (u64{value} << 8);
      return;
    }
  }
  write_gpr<T>(s, operand.reg, value);
}
// A general register by size in bytes known only at run time (never AH..BH).
inline void write_gpr_sized(CpuState& s, unsigned reg, unsigned size, u64 value) {
  if (size >= 4)
    s.gpr[reg] = size == 4 ? value & 0xffffffff : value;
  else
    s.gpr[reg] = (s.gpr[reg] & ~mask_for_size(size)) | (value & mask_for_size(size));
}

// ---- operands
// -------------------------------------------------------------------------------------------------------------
template <class T>
T read_operand(Cpu& cpu, const Insn& insn, unsigned index) {
  const Operand& operand = insn.operands[index];
  switch (operand.kind) {
    case OperandKind::kRegister:
      return read_reg<T>(cpu.s, operand);
    case OperandKind::kMemory:
      return static_cast<T>(cpu.load(cpu.linear_of(insn, sizeof(T), Access::kRead), sizeof(T)));
    default:
      return static_cast<T>(insn.imm);
  }
}
template <class T>
void write_operand(Cpu& cpu, const Insn& insn, unsigned index, T value) {
  const Operand& operand = insn.operands[index];
  if (operand.kind == OperandKind::kRegister)
    write_reg<T>(cpu.s, operand, value);
  else
    cpu.store(cpu.linear_of(insn, sizeof(T), Access::kWrite), sizeof(T), value);
}
// Replaces the operand by f(operand). f may run several times and must not raise; what it notes must be noted afresh
// each time.
template <class T, class F>
void modify_operand(Cpu& cpu, const Insn& insn, unsigned index, F&& f) {
  const Operand& operand = insn.operands[index];
  if (operand.kind == OperandKind::kRegister)
    write_reg<T>(cpu.s, operand, f(read_reg<T>(cpu.s, operand)));
  else
    modify_memory<T>(cpu, cpu.linear_of(insn, sizeof(T), Access::kWrite), insn.lock, f);
}

// Calls f with a value of the unsigned type that is `size` bytes wide.
template <class F>
StepResult by_size(unsigned size, F&& f) {
  switch (size) {
    case 1:
      return f(u8{});
    case 2:
      return f(u16{});
    case 4:
      return f(u32{});
    default:
      return f(u64{});
  }
}
template <class F>
StepResult by_wide_size(unsigned size, F&& f) {
  switch (size) {
    case 2:
      return f(u16{});
    case 4:
      return f(u32{});
    default:
      return f(u64{});
  }
}

// ---- checks
// -------------------------------------------------------------------------------------------------------------
inline bool canonical(u64 address) { return static_cast<u64>(static_cast<i64>(address << 16) >> 16) == address; }
inline void require_cpl0(Cpu& cpu) {
  if (cpu.s.cpl != 0) cpu.raise(kGp, 0);
}
inline unsigned iopl(const Cpu& cpu) { return (cpu.s.rflags >> 12) & 3; }
inline bool real_or_v8086(const Cpu& cpu) { return !cpu.protected_mode() || cpu.v8086(); }
inline void require_protected(Cpu& cpu) {
  if (real_or_v8086(cpu)) cpu.raise(kUd);
}

// Where a near branch goes: checked before anything changes [SDM-2A "JMP"]. In 64-bit mode the operand size is
// always 8.
inline u64 checked_target(Cpu& cpu, const Insn& insn, u64 target) {
  if (insn.mode == CodeSize::k64) {
    if (!canonical(target)) cpu.raise(kGp, 0);
    return target;
  }
  target &= insn.operand_size == 2 ? 0xffff : 0xffffffff;
  if (target > cpu.s.seg[kCs].limit) cpu.raise(kGp, 0);
  return target;
}
inline unsigned branch_size(const Insn& insn) { return insn.mode == CodeSize::k64 ? 8 : insn.operand_size; }
inline StepResult branch(Cpu& cpu, u64 checked) {
  cpu.s.rip = checked;
  return StepResult::kBranch;
}

using Handler = StepResult (*)(Cpu&, const Insn&);

}  // namespace bulkhead::engine::dbt
