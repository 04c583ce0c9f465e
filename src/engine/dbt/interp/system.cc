// Interrupt flag, HLT, TLB and cache control, CPUID, random numbers, hypercalls, ports, SMAP, hints and the refused.
#include "engine/dbt/interp/system.h"

#include <sys/syscall.h>
#include <unistd.h>

#include "engine/dbt/interp/extensions.h"
#include "engine/dbt/interp/handlers.h"
#include "engine/dbt/interp/ops.h"

namespace bulkhead::engine::dbt {
namespace {

void require_iopl(Cpu& cpu) {
  if (cpu.protected_mode() && cpu.s.cpl > iopl(cpu)) cpu.raise(kGp, 0);  // virtual-8086 mode runs at CPL 3
}

// CLFLUSH and friends: checked like a byte load, which even MMIO gets without an access.
void check_readable(Cpu& cpu, const Insn& insn) {
  const u64 linear = cpu.linear_of(insn, 1, Access::kRead);
  const Cpu::Translation t = cpu.walk(linear, Access::kRead, cpu.s.cpl == 3);
  if (!t.ok) cpu.raise_page_fault(linear, t.error);
}

StepResult random(Cpu& cpu, const Insn& insn, u64 value, bool valid) {
  write_gpr_sized(cpu.s, insn.operands[0].reg, insn.operands[0].size, valid ? value : 0);
  cpu.s.rflags = (cpu.s.rflags & ~kArithmeticFlags) | (valid ? kCf : 0);
  return next(cpu, insn);
}

u64 port_value(Cpu& cpu, const Insn& insn, unsigned index) {
  return insn.operands[index].kind == OperandKind::kImmediate ? insn.imm & 0xff : cpu.s.gpr[kRdx] & 0xffff;
}

}  // namespace

StepResult op_cli(Cpu& cpu, const Insn& insn) {
  require_iopl(cpu);
  if (!(cpu.s.rflags & kIf)) return next(cpu, insn);
  cpu.s.rflags &= ~kIf;
  return next_changed(cpu, insn);
}
StepResult op_sti(Cpu& cpu, const Insn& insn) {
  require_iopl(cpu);
  if (cpu.s.rflags & kIf) return next(cpu, insn);
  cpu.s.rflags |= kIf;
  begin_interrupt_shadow(cpu);
  cpu.interrupts_may_be_deliverable();
  return next_changed(cpu, insn);
}

StepResult op_hlt(Cpu& cpu, const Insn& insn) {
  require_cpl0(cpu);
  cpu.s.rip = next_rip(cpu, insn);
  cpu.s.halted = true;
  return StepResult::kHalt;
}

StepResult op_invlpg(Cpu& cpu, const Insn& insn) {
  require_cpl0(cpu);
  // No limit, type or canonical check: an address that cannot be mapped has no entry.
  const u64 offset = cpu.effective_address(insn);
  const unsigned seg = insn.mem.segment;
  const bool flat = insn.mode == CodeSize::k64 && seg != kFs && seg != kGs;
  const u64 linear = flat ? offset : cpu.s.seg[seg].base + offset;
  cpu.flush_tlb_page(insn.mode == CodeSize::k64 ? linear : linear & 0xffffffff);
  return next_changed(cpu, insn);
}

StepResult op_invpcid(Cpu& cpu, const Insn& insn) {
  require_extension(cpu, Extension::kInvpcid);
  require_cpl0(cpu);
  const u64 linear = cpu.linear_of(insn, 16, Access::kRead);
  const u64 pcid = cpu.load(linear, 8), address = cpu.load(linear + 8, 8);
  const u64 type = cpu.s.gpr[insn.operands[0].reg] & mask_for_size(insn.operands[0].size);
  cpu.invpcid(type, pcid, address);
  return next_changed(cpu, insn);
}

// Guest memory is coherent; nothing to write back.
StepResult op_wbinvd(Cpu& cpu, const Insn& insn) {
  require_cpl0(cpu);
  return next(cpu, insn);
}

StepResult op_clflush(Cpu& cpu, const Insn& insn) {
  require_extension(cpu, Extension::kClflush);
  check_readable(cpu, insn);
  return next(cpu, insn);
}
StepResult op_clflushopt(Cpu& cpu, const Insn& insn) {
  require_extension(cpu, Extension::kClflushOpt);
  check_readable(cpu, insn);
  return next(cpu, insn);
}
StepResult op_clwb(Cpu& cpu, const Insn& insn) {
  require_extension(cpu, Extension::kClwb);
  check_readable(cpu, insn);
  return next(cpu, insn);
}
StepResult op_clzero(Cpu& cpu, const Insn& insn) {
  require_extension(cpu, Extension::kClzero);
  const u64 offset = cpu.s.gpr[kRax] & mask_for_size(insn.address_size) & ~u64{63};
  const u64 zeros[8]{};
  cpu.store_bytes(cpu.linear(static_cast<Seg>(insn.mem.segment), offset, 64, Access::kWrite), zeros, sizeof(zeros));
  return next(cpu, insn);
}

StepResult op_cpuid(Cpu& cpu, const Insn& insn) {
  cpu.cpuid();
  return next(cpu, insn);
}

StepResult op_rdrand(Cpu& cpu, const Insn& insn) {
  require_extension(cpu, Extension::kRdrand);
  u64 value;
  bool valid;
  __asm__ volatile("rdrand %0" : "=r"(value), "=@ccc"(valid));
  return random(cpu, insn, value, valid);
}
StepResult op_rdseed(Cpu& cpu, const Insn& insn) {
  require_extension(cpu, Extension::kRdseed);
  u64 value;
  bool valid;
  __asm__ volatile("rdseed %0" : "=r"(value), "=@ccc"(valid));
  return random(cpu, insn, value, valid);
}

// Answered through the completion log like a port read.
StepResult op_vmcall(Cpu& cpu, const Insn& insn) {
  CpuState& s = cpu.s;
  if (s.cpl != 0) cpu.raise(kUd);
  if (cpu.io_log.next < cpu.io_log.done) {
    s.gpr[kRax] = cpu.io_log.value[cpu.io_log.next++];
    return next_changed(cpu, insn);
  }
  const bool wide = cpu.code_size() == CodeSize::k64;
  static constexpr std::array<std::array<u8, 6>, 2> kArguments = {
      {{kRbx, kRcx, kRdx, kRsi, kRdi, kRbp}, {kRdi, kRsi, kRdx, kR10, kR8, kR9}}};
  const u64 mask = mask_for_size(wide ? 8 : 4);
  HypercallExit call{s.gpr[kRax] & mask, {}, wide};
  for (unsigned i = 0; i < 6; ++i) call.args[i] = s.gpr[kArguments[wide ? 1 : 0][i]] & mask;
  cpu.escape_exit(call);
}

StepResult op_in(Cpu& cpu, const Insn& insn) {
  const unsigned size = insn.operands[0].size;
  const u64 value = cpu.port_in(static_cast<u16>(port_value(cpu, insn, 1)), size);
  write_gpr_sized(cpu.s, kRax, size, value);
  return next(cpu, insn);
}
StepResult op_out(Cpu& cpu, const Insn& insn) {
  const unsigned size = insn.operands[1].size;
  cpu.port_out(static_cast<u16>(port_value(cpu, insn, 0)), size, cpu.s.gpr[kRax] & mask_for_size(size));
  return next(cpu, insn);
}

StepResult op_stac(Cpu& cpu, const Insn& insn) {
  require_extension(cpu, Extension::kSmap);
  if (cpu.s.cpl != 0) cpu.raise(kUd);
  cpu.write_rflags(kAc, kAc);
  return next_changed(cpu, insn);
}
StepResult op_clac(Cpu& cpu, const Insn& insn) {
  require_extension(cpu, Extension::kSmap);
  if (cpu.s.cpl != 0) cpu.raise(kUd);
  cpu.write_rflags(0, kAc);
  return next_changed(cpu, insn);
}

// MWAIT may end at any time; ours ends at once.
StepResult op_monitor(Cpu& cpu, const Insn& insn) {
  require_extension(cpu, Extension::kMonitor);
  if (cpu.s.cpl != 0) cpu.raise(kUd);
  const u64 offset = cpu.s.gpr[kRax] & mask_for_size(insn.address_size);
  cpu.load(cpu.linear(static_cast<Seg>(insn.mem.segment), offset, 1, Access::kRead), 1);
  if (static_cast<u32>(cpu.s.gpr[kRcx]) != 0) cpu.raise(kGp, 0);
  return next(cpu, insn);
}
StepResult op_mwait(Cpu& cpu, const Insn& insn) {
  require_extension(cpu, Extension::kMonitor);
  if (cpu.s.cpl != 0) cpu.raise(kUd);
  if (static_cast<u32>(cpu.s.gpr[kRcx]) > 1) cpu.raise(kGp, 0);
  __asm__ volatile("pause");
  return next_changed(cpu, insn);
}

// A vCPU that spins waits for another one, whose thread may have no processor to run on while we spin: we give ours
// away now and then, or each hand-over between the two costs a time slice of the host.
StepResult op_pause(Cpu& cpu, const Insn& insn) {
  constexpr unsigned kPausesPerYield = 32;
  static thread_local unsigned pauses = 0;
  __asm__ volatile("pause");
  if (++pauses % kPausesPerYield == 0) ::syscall(SYS_sched_yield);
  return next(cpu, insn);
}
StepResult op_nop(Cpu& cpu, const Insn& insn) { return next(cpu, insn); }
StepResult op_fence(Cpu& cpu, const Insn& insn) {
  __asm__ volatile("mfence" ::: "memory");
  return next(cpu, insn);
}
StepResult op_serialize(Cpu& cpu, const Insn& insn) {
  require_extension(cpu, Extension::kSerialize);
  return next_changed(cpu, insn);
}

StepResult op_undefined(Cpu& cpu, const Insn&) { cpu.raise(kUd); }

}  // namespace bulkhead::engine::dbt
