// IRET in every mode [SDM-2A IRET].
#include "engine/dbt/cpu/cpu.h"
#include "engine/dbt/cpu/stack.h"

namespace bulkhead::engine::dbt {

void Cpu::iret(unsigned operand_size) {
  if (!protected_mode()) {
    iret_real(operand_size);
  } else if (v8086()) {
    if ((s.rflags & kIopl) != kIopl) raise(kGp, 0);
    iret_real(operand_size);
  } else if (s.rflags & kNt) {
    if (long_mode()) raise(kGp, 0);
    task_switch(static_cast<u16>(load_system(s.tr.base, 2)), TaskSwitch::kIret, nullptr, next_instruction());
  } else {
    iret_protected(operand_size);
  }
  if (s.nmi_blocked) {
    s.nmi_blocked = false;
    interrupts_may_be_deliverable();
  }
}

// Real mode, and virtual-8086 mode with IOPL 3, where IOPL and VM stay.
void Cpu::iret_real(unsigned size) {
  StackCursor stack{*this};
  const u64 rip = stack.pop(size);
  const u16 cs = static_cast<u16>(stack.pop(size));
  const u64 flags = stack.pop(size);
  if (rip > s.seg[kCs].limit) raise(kGp, 0);
  set_stack_pointer(stack.sp());
  set_real_mode_segment(kCs, cs);
  s.rip = rip;
  u64 changeable = kArithmeticFlags | kTf | kIf | kDf | kNt;
  if (size == 4) changeable |= kRf | kAc | kId;
  if (!v8086()) changeable |= kIopl;
  write_rflags(flags, changeable);
  keep_rf_ = true;
}

void Cpu::apply_iret_flags(u64 flags, unsigned size, unsigned old_cpl) {
  u64 changeable = kArithmeticFlags | kTf | kDf | kNt;
  if (size >= 4) changeable |= kRf | kAc | kId;
  if (old_cpl <= (s.rflags & kIopl) >> 12) changeable |= kIf;
  if (old_cpl == 0) changeable |= kIopl | (size >= 4 ? kVif | kVip : 0);
  if (s.dr[7] & 0xff) {
    keep_rf_ = true;
  } else {
    flags &= ~kRf;  // nothing that it could suppress, and nobody would clear it after the next instruction
  }
  write_rflags(flags, changeable);
}

void Cpu::iret_to_v8086(u64 rip, u16 cs, u64 flags, StackCursor& stack) {
  const u64 rsp = stack.pop(4);
  const u16 ss = static_cast<u16>(stack.pop(4)), es = static_cast<u16>(stack.pop(4)),
            ds = static_cast<u16>(stack.pop(4)), fs = static_cast<u16>(stack.pop(4)),
            gs = static_cast<u16>(stack.pop(4));
  if (rip > 0xffff) raise(kGp, 0);
  write_rflags(flags, ~u64{0});
  set_real_mode_segment(kCs, cs);
  set_real_mode_segment(kSs, ss);
  set_real_mode_segment(kEs, es);
  set_real_mode_segment(kDs, ds);
  set_real_mode_segment(kFs, fs);
  set_real_mode_segment(kGs, gs);
  s.gpr[kRsp] = rsp;
  s.rip = rip & 0xffff;
  update_cpl(3);
}

// Whether loading the selector would change nothing, nor could it fault: its descriptor is still as it was loaded.
bool Cpu::is_loaded(Seg seg, u16 selector) const {
  const Segment& now = s.seg[seg];
  if (selector != now.selector || is_null(selector) || (selector & 4) || rpl_of(selector) != s.cpl) return false;
  if (!now.present() || now.dpl() != s.cpl || (selector | 7u) > s.gdtr.limit) return false;
  const void* const host = at_hand(system_space(), s.gdtr.base + (selector & ~7u), 8);
  if (host == nullptr) return false;
  const Segment there = Descriptor{.low = *static_cast<const volatile u64*>(host)}.segment(selector);
  return there.attributes == now.attributes && there.limit == now.limit && there.base == now.base;
}

// IRETQ to the segments that are loaded, which is how kernels come back from most exceptions, and how they serialize.
// False: nothing has changed, and it is to be done in full.
bool Cpu::iret_in_place() {
  if (code_size() != CodeSize::k64 || data_breakpoints_) return false;
  const auto* const frame = static_cast<const volatile u64*>(at_hand(s.tlb_space, s.gpr[kRsp], 40));
  if (frame == nullptr) return false;
  const u64 rip = frame[0], flags = frame[2], rsp = frame[3];
  if (!canonical(rip) || !is_loaded(kCs, static_cast<u16>(frame[1])) || !is_loaded(kSs, static_cast<u16>(frame[4])))
    return false;
  s.rip = rip;
  s.gpr[kRsp] = rsp;
  apply_iret_flags(flags, 8, s.cpl);
  return true;
}

void Cpu::iret_protected(unsigned size) {
  if (size == 8 && iret_in_place()) return;
  StackCursor stack{*this};
  const u64 rip = stack.pop(size);
  const u16 cs = static_cast<u16>(stack.pop(size));
  const u64 flags = stack.pop(size);
  if ((flags & kVm) && s.cpl == 0 && size == 4 && !long_mode()) return iret_to_v8086(rip, cs, flags, stack);
  Descriptor code = return_code_target(cs);
  const unsigned old_cpl = s.cpl;
  if (rpl_of(cs) > old_cpl || code_size() == CodeSize::k64) {
    const u64 rsp = stack.pop(size);
    const u16 ss = static_cast<u16>(stack.pop(size));
    return_outer(code, cs, rip, ss, rsp, 0);
  } else {
    check_code_target(code, rip, error_of(cs));
    set_stack_pointer(stack.sp());
    commit_code(code, cs, old_cpl, rip);
  }
  apply_iret_flags(flags, size, old_cpl);
}

}  // namespace bulkhead::engine::dbt
