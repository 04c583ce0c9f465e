// CRn, DRn, MSRs, XCR0, FS/GS bases, time stamp: what privileged code sets and anyone may ask.
#include "engine/dbt/interp/extensions.h"
#include "engine/dbt/interp/handlers.h"
#include "engine/dbt/interp/ops.h"
#include "engine/dbt/interp/system.h"

namespace bulkhead::engine::dbt {
namespace {

// Control and debug registers move in full width whatever the operand size says.
u64 full_register(const Cpu& cpu, const Insn& insn, unsigned reg) {
  return insn.mode == CodeSize::k64 ? cpu.s.gpr[reg] : static_cast<u32>(cpu.s.gpr[reg]);
}
void set_full_register(Cpu& cpu, const Insn& insn, unsigned reg, u64 value) {
  cpu.s.gpr[reg] = insn.mode == CodeSize::k64 ? value : static_cast<u32>(value);
}

void set_edx_eax(CpuState& s, u64 value) {
  s.gpr[kRax] = static_cast<u32>(value);
  s.gpr[kRdx] = value >> 32;
}
u64 edx_eax(const CpuState& s) { return s.gpr[kRdx] << 32 | static_cast<u32>(s.gpr[kRax]); }

void require_tsc(Cpu& cpu) {
  if ((cpu.s.cr4 & kCr4Tsd) && cpu.s.cpl > 0) cpu.raise(kGp, 0);
}

void require_fsgsbase(Cpu& cpu, const Insn& insn) {
  if (insn.mode != CodeSize::k64 || !(cpu.s.cr4 & kCr4Fsgsbase)) cpu.raise(kUd);
}
StepResult read_base(Cpu& cpu, const Insn& insn, Seg seg) {
  require_fsgsbase(cpu, insn);
  write_gpr_sized(cpu.s, insn.operands[0].reg, insn.operands[0].size, cpu.s.seg[seg].base);
  return next(cpu, insn);
}
StepResult write_base(Cpu& cpu, const Insn& insn, Seg seg) {
  require_fsgsbase(cpu, insn);
  const u64 base = cpu.s.gpr[insn.operands[0].reg] & mask_for_size(insn.operands[0].size);
  if (!canonical(base)) cpu.raise(kGp, 0);
  cpu.s.seg[seg].base = base;
  return next(cpu, insn);
}

}  // namespace

StepResult mov_control(Cpu& cpu, const Insn& insn) {
  const Operand &to = insn.operands[0], &from = insn.operands[1];
  const bool write = to.reg_class == RegisterClass::kControl;
  const unsigned number = write ? to.reg : from.reg;
  if (number != 0 && number != 2 && number != 3 && number != 4 && number != 8) cpu.raise(kUd);
  require_cpl0(cpu);
  if (write) {
    cpu.write_cr(number, full_register(cpu, insn, from.reg));
    return next_changed(cpu, insn);
  }
  set_full_register(cpu, insn, to.reg, cpu.read_cr(number));
  return next(cpu, insn);
}

StepResult mov_debug(Cpu& cpu, const Insn& insn) {
  require_cpl0(cpu);
  const Operand &to = insn.operands[0], &from = insn.operands[1];
  if (to.reg_class == RegisterClass::kDebug) {
    cpu.write_dr(to.reg, full_register(cpu, insn, from.reg));
    return next_changed(cpu, insn);
  }
  set_full_register(cpu, insn, to.reg, cpu.read_dr(from.reg));
  return next(cpu, insn);
}

StepResult op_clts(Cpu& cpu, const Insn& insn) {
  require_cpl0(cpu);
  if (cpu.s.cr0 & kCr0Ts) cpu.write_cr(0, cpu.s.cr0 & ~kCr0Ts);
  return next_changed(cpu, insn);
}
// Sets PE, MP, EM, TS; cannot clear PE.
StepResult op_lmsw(Cpu& cpu, const Insn& insn) {
  require_cpl0(cpu);
  const u64 value = read_operand<u16>(cpu, insn, 0) & 0xf;
  cpu.write_cr(0, (cpu.s.cr0 & ~u64{0xe}) | value);
  return next_changed(cpu, insn);
}

StepResult op_rdmsr(Cpu& cpu, const Insn& insn) {
  require_cpl0(cpu);
  set_edx_eax(cpu.s, cpu.read_msr(static_cast<u32>(cpu.s.gpr[kRcx])));
  return next(cpu, insn);
}
StepResult op_wrmsr(Cpu& cpu, const Insn& insn) {
  require_cpl0(cpu);
  cpu.write_msr(static_cast<u32>(cpu.s.gpr[kRcx]), edx_eax(cpu.s));
  return next_changed(cpu, insn);
}

StepResult op_rdtsc(Cpu& cpu, const Insn& insn) {
  require_tsc(cpu);
  set_edx_eax(cpu.s, cpu.read_tsc());
  return next(cpu, insn);
}
StepResult op_rdtscp(Cpu& cpu, const Insn& insn) {
  require_extension(cpu, Extension::kRdtscp);
  require_tsc(cpu);
  set_edx_eax(cpu.s, cpu.read_tsc());
  cpu.s.gpr[kRcx] = static_cast<u32>(cpu.s.tsc_aux);
  return next(cpu, insn);
}
StepResult op_rdpid(Cpu& cpu, const Insn& insn) {
  require_extension(cpu, Extension::kRdpid);
  cpu.s.gpr[insn.operands[0].reg] = static_cast<u32>(cpu.s.tsc_aux);
  return next(cpu, insn);
}
// No counters are advertised; the four that every AMD processor has stand still at zero.
StepResult op_rdpmc(Cpu& cpu, const Insn& insn) {
  if (cpu.s.cpl > 0 && !(cpu.s.cr4 & kCr4Pce) && cpu.protected_mode()) cpu.raise(kGp, 0);
  if (static_cast<u32>(cpu.s.gpr[kRcx]) >= 4) cpu.raise(kGp, 0);
  set_edx_eax(cpu.s, 0);
  return next(cpu, insn);
}

StepResult op_xgetbv(Cpu& cpu, const Insn& insn) {
  if (!(cpu.s.cr4 & kCr4Osxsave)) cpu.raise(kUd);
  const u32 index = static_cast<u32>(cpu.s.gpr[kRcx]);
  // XINUSE (index 1) may report components in use that are in their initial state.
  if (index > 1 || (index == 1 && !has_extension(cpu, Extension::kXgetbv1))) cpu.raise(kGp, 0);
  set_edx_eax(cpu.s, cpu.s.xcr0);
  return next(cpu, insn);
}
StepResult op_xsetbv(Cpu& cpu, const Insn& insn) {
  if (!(cpu.s.cr4 & kCr4Osxsave)) cpu.raise(kUd);
  require_cpl0(cpu);
  if (static_cast<u32>(cpu.s.gpr[kRcx]) != 0) cpu.raise(kGp, 0);
  cpu.write_xcr0(edx_eax(cpu.s));
  return next_changed(cpu, insn);
}

StepResult op_swapgs(Cpu& cpu, const Insn& insn) {
  if (insn.mode != CodeSize::k64) cpu.raise(kUd);
  require_cpl0(cpu);
  const u64 base = cpu.s.seg[kGs].base;
  cpu.s.seg[kGs].base = cpu.s.kernel_gs_base;
  cpu.s.kernel_gs_base = base;
  return next(cpu, insn);
}

StepResult op_rdfsbase(Cpu& cpu, const Insn& insn) { return read_base(cpu, insn, kFs); }
StepResult op_rdgsbase(Cpu& cpu, const Insn& insn) { return read_base(cpu, insn, kGs); }
StepResult op_wrfsbase(Cpu& cpu, const Insn& insn) { return write_base(cpu, insn, kFs); }
StepResult op_wrgsbase(Cpu& cpu, const Insn& insn) { return write_base(cpu, insn, kGs); }

}  // namespace bulkhead::engine::dbt
