// Instructions on RFLAGS alone, and the BCD adjustments.
#include "engine/dbt/interp/extensions.h"
#include "engine/dbt/interp/handlers.h"
#include "engine/dbt/interp/ops.h"

namespace bulkhead::engine::dbt {
namespace {

void set_al(CpuState& s, unsigned value) { write_gpr<u8>(s, kRax, static_cast<u8>(value)); }
unsigned al(const CpuState& s) { return static_cast<u8>(s.gpr[kRax]); }
unsigned ah(const CpuState& s) { return static_cast<u8>(s.gpr[kRax] >> 8); }

// SF, ZF and PF of a byte; CF and AF as given; OF cleared, as hosts leave it where it is undefined.
void set_result_flags(CpuState& s, unsigned value, bool carry, bool adjust) {
  const u8 byte = static_cast<u8>(value);
  u64 flags = (carry ? kCf : 0) | (adjust ? kAf : 0);
  if (byte & 0x80) flags |= kSf;
  if (byte == 0) flags |= kZf;
  if (__builtin_parity(byte) == 0) flags |= kPf;
  s.rflags = (s.rflags & ~kArithmeticFlags) | flags;
}

// DAA and DAS [SDM-2A "DAA", "DAS"].
StepResult decimal_adjust(Cpu& cpu, const Insn& insn, bool subtract) {
  CpuState& s = cpu.s;
  const unsigned old = al(s);
  const bool old_carry = s.rflags & kCf;
  unsigned value = old;
  const bool adjust = (old & 15) > 9 || (s.rflags & kAf);
  bool carry = old_carry || old > 0x99;
  if (adjust) {
    if (subtract && old < 6) carry = true;
    value = subtract ? value - 6 : value + 6;
  }
  if (old > 0x99 || old_carry) value = subtract ? value - 0x60 : value + 0x60;
  set_al(s, value);
  set_result_flags(s, value, carry, adjust);
  return next(cpu, insn);
}

// AAA and AAS [SDM-2A "AAA", "AAS"].
StepResult ascii_adjust(Cpu& cpu, const Insn& insn, bool subtract) {
  CpuState& s = cpu.s;
  const bool adjust = (al(s) & 15) > 9 || (s.rflags & kAf);
  u16 ax = static_cast<u16>(s.gpr[kRax]);
  if (adjust) ax = static_cast<u16>(subtract ? ax - 0x106 : ax + 0x106);
  set_result_flags(s, ax & 0xff, adjust, adjust);
  write_gpr<u16>(s, kRax, ax & 0xff0f);
  return next(cpu, insn);
}

}  // namespace

StepResult op_daa(Cpu& cpu, const Insn& insn) { return decimal_adjust(cpu, insn, false); }
StepResult op_das(Cpu& cpu, const Insn& insn) { return decimal_adjust(cpu, insn, true); }
StepResult op_aaa(Cpu& cpu, const Insn& insn) { return ascii_adjust(cpu, insn, false); }
StepResult op_aas(Cpu& cpu, const Insn& insn) { return ascii_adjust(cpu, insn, true); }

StepResult op_aam(Cpu& cpu, const Insn& insn) {
  const unsigned base = static_cast<u8>(insn.imm);
  if (base == 0) cpu.raise(kDe);
  const unsigned value = al(cpu.s);
  write_gpr<u16>(cpu.s, kRax, static_cast<u16>((value / base) << 8 | value % base));
  set_result_flags(cpu.s, value % base, false, false);
  return next(cpu, insn);
}

StepResult op_aad(Cpu& cpu, const Insn& insn) {
  const unsigned value = (al(cpu.s) + ah(cpu.s) * static_cast<u8>(insn.imm)) & 0xff;
  write_gpr<u16>(cpu.s, kRax, static_cast<u16>(value));
  set_result_flags(cpu.s, value, false, false);
  return next(cpu, insn);
}

StepResult op_clc(Cpu& cpu, const Insn& insn) {
  cpu.s.rflags &= ~kCf;
  return next(cpu, insn);
}
StepResult op_stc(Cpu& cpu, const Insn& insn) {
  cpu.s.rflags |= kCf;
  return next(cpu, insn);
}
StepResult op_cmc(Cpu& cpu, const Insn& insn) {
  cpu.s.rflags ^= kCf;
  return next(cpu, insn);
}
StepResult op_cld(Cpu& cpu, const Insn& insn) {
  cpu.s.rflags &= ~kDf;
  return next(cpu, insn);
}
StepResult op_std(Cpu& cpu, const Insn& insn) {
  cpu.s.rflags |= kDf;
  return next(cpu, insn);
}

StepResult op_lahf(Cpu& cpu, const Insn& insn) {
  if (insn.mode == CodeSize::k64) require_extension(cpu, Extension::kLahf64);
  const u64 image = (cpu.s.rflags & 0xd5) | 2;
  cpu.s.gpr[kRax] = (cpu.s.gpr[kRax] & ~u64{0xff00}) | image << 8;
  return next(cpu, insn);
}
StepResult op_sahf(Cpu& cpu, const Insn& insn) {
  if (insn.mode == CodeSize::k64) require_extension(cpu, Extension::kLahf64);
  cpu.s.rflags = (cpu.s.rflags & ~u64{0xd5}) | (ah(cpu.s) & 0xd5);
  return next(cpu, insn);
}

StepResult op_salc(Cpu& cpu, const Insn& insn) {
  set_al(cpu.s, (cpu.s.rflags & kCf) ? 0xff : 0);
  return next(cpu, insn);
}

}  // namespace bulkhead::engine::dbt
