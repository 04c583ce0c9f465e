// Delivery of exceptions and interrupts [SDM-3A §6]. enter_*() change no register before everything that can fault is
// done.
#include "engine/dbt/cpu/cpu.h"
#include "engine/dbt/cpu/stack.h"

namespace bulkhead::engine::dbt {
namespace {

enum class Class : u8 { kBenign, kContributory, kPageFault, kDoubleFault };

Class class_of(u8 vector) {
  switch (vector) {
    case kDe:
    case kTs:
    case kNp:
    case kSsFault:
    case kGp:
      return Class::kContributory;
    case kPageFault:
      return Class::kPageFault;
    case kDf8:
      return Class::kDoubleFault;
    default:
      return Class::kBenign;
  }
}

// [SDM-3A table 6-5]
bool is_double_fault(Class first, Class second) {
  if (first == Class::kContributory) return second == Class::kContributory;
  if (first == Class::kPageFault) return second == Class::kContributory || second == Class::kPageFault;
  return false;
}

bool is_fault_class(u8 vector) {
  return vector != kDb && vector != kNmi && vector != kBp && vector != kOfVector && vector != kDf8 && vector != kMc;
}

}  // namespace

// ---- entry points

StepResult Cpu::deliver(const Fault& f) {
  Event event;
  event.vector = f.vector;
  event.has_error = f.has_error;
  event.error = f.error;
  event.address = f.address;
  event.fault_class = is_fault_class(f.vector);
  event.return_rip = s.rip;
  return deliver_event(event);
}

StepResult Cpu::deliver_external(u8 vector) {
  s.halted = false;
  Event event;
  event.vector = vector;
  event.return_rip = s.rip;
  return deliver_event(event);
}

// Raises what goes wrong as the INT instruction's own fault.
StepResult Cpu::deliver_software_interrupt(u8 vector, u64 return_rip, bool int3_or_into, bool icebp) {
  if (v8086() && !int3_or_into && !icebp && (s.rflags & kIopl) != kIopl) raise(kGp, 0);
  if (deprivileged) {
    const Trap::Kind kind = icebp ? Trap::Kind::kException : Trap::Kind::kSoftwareInterrupt;
    trap = {kind, vector, false, 0, 0, return_rip};
    return StepResult::kTrap;
  }
  Event event;
  event.vector = vector;
  event.software = !icebp;
  event.return_rip = return_rip;
  const bool outer = no_exit_, stepping = s.rflags & kTf;
  no_exit_ = true;
  ext_ = icebp ? 1 : 0;
  enter_handler(event);
  no_exit_ = outer;
  ext_ = 0;
  if (stepping) step_override_ = 0;  // TF is off in the handler, and the trap with it
  return StepResult::kBranch;
}

StepResult Cpu::deliver_event(Event event) {
  for (;;) {
    if (event.vector == kPageFault && event.fault_class) s.cr2 = event.address;
    if (event.vector == kDb && event.address != 0) s.dr[6] = (s.dr[6] & ~u64{0xf}) | 0xffff0ff0 | event.address;
    if (deprivileged) {
      trap = {Trap::Kind::kException, event.vector, event.has_error, event.error, event.address, event.return_rip};
      return StepResult::kTrap;
    }
    if (try_enter(event)) {
      if (event.vector == kDb) s.dr[7] &= ~(u64{1} << 13);  // GD
      return StepResult::kBranch;
    }
    const bool exception = event.fault_class || event.has_error;  // else an interrupt or a trap, which is benign
    const Class first = exception ? class_of(event.vector) : Class::kBenign, second = class_of(fault.vector);
    if (first == Class::kDoubleFault) {
      exit = ShutdownExit{ShutdownReason::kTripleFault};
      return StepResult::kShutdown;
    }
    Event next;
    next.return_rip = s.rip;
    if (is_double_fault(first, second)) {
      if (fault.vector == kPageFault) s.cr2 = fault.address;
      next.vector = kDf8;
      next.has_error = true;
    } else {
      next.vector = fault.vector;
      next.has_error = fault.has_error;
      next.error = fault.error;
      next.address = fault.address;
      next.fault_class = is_fault_class(fault.vector);
    }
    event = next;
  }
}

bool Cpu::try_enter(const Event& event) {
  BH_GUARD(*this) {
    no_exit_ = true;
    ext_ = 1;
    enter_handler(event);
    no_exit_ = false;
    ext_ = 0;
    return true;
  }
  return false;
}

void Cpu::enter_handler(const Event& event) {
  if (!protected_mode()) {
    enter_real(event);
  } else if (long_mode()) {
    enter_long(event);
  } else {
    enter_legacy(event);
  }
  s.interrupt_shadow = false;
}

// ---- pieces

u64 Cpu::saved_flags(const Event& event) const { return s.rflags | (event.fault_class ? kRf : 0); }

void Cpu::flags_after_entry(bool interrupt_gate) {
  u64 flags = s.rflags & ~(kTf | kNt | kVm | kRf);
  if (interrupt_gate) flags &= ~kIf;
  set_flags(flags);
}

u64 Cpu::tss_field(unsigned offset, unsigned size) {
  if (s.tr.unusable() || offset + size - 1 > s.tr.limit) raise(kTs, error_of(s.tr.selector) | ext_);
  return load_system(s.tr.base + offset, size);
}

// Where the TSS keeps the stack of ring `cpl`.
Cpu::StackTarget Cpu::inner_stack(unsigned cpl) {
  if (long_mode()) {
    const u64 rsp = tss_field(4 + 8 * cpl, 8);
    if (!canonical(rsp)) raise(kSsFault, ext_);
    return {static_cast<u16>(cpl), rsp};
  }
  if (tss_is_32()) {
    tss_field(8 * cpl + 4, 6);
    return {static_cast<u16>(tss_field(8 * cpl + 8, 2)), tss_field(8 * cpl + 4, 4)};
  }
  return {static_cast<u16>(tss_field(4 * cpl + 4, 2)), tss_field(4 * cpl + 2, 2)};
}

Descriptor Cpu::inner_stack_segment(u16 ss, unsigned cpl) {
  if (is_null(ss)) raise(kTs, ext_);
  const u32 error = error_of(ss) | ext_;
  const Descriptor d = read_descriptor(ss, kTs);
  if (rpl_of(ss) != cpl || d.dpl() != cpl || !d.is_writable_data()) raise(kTs, error);
  if (!d.present()) raise(kSsFault, error);
  return d;
}

Descriptor Cpu::handler_code(const Descriptor& gate) {
  const u16 selector = gate.gate_selector();
  if (is_null(selector)) raise(kGp, ext_);
  const Descriptor code = read_descriptor(selector, kGp);
  const u32 error = error_of(selector) | ext_;
  if (!code.is_code() || code.dpl() > s.cpl) raise(kGp, error);
  if (long_mode() && (!code.long_mode() || code.big())) raise(kGp, error);
  if (!code.present()) raise(kNp, error);
  return code;
}

// ---- real mode

void Cpu::enter_real(const Event& event) {
  const u32 at = event.vector * 4u;
  if (at + 3 > s.idtr.limit) raise(kGp, 0);
  const u64 vector = load_system(s.idtr.base + at, 4);
  StackCursor stack{*this};
  stack.push(s.rflags & 0xffff, 2);
  stack.push(s.seg[kCs].selector, 2);
  stack.push(event.return_rip, 2);
  set_stack_pointer(stack.sp());
  set_real_mode_segment(kCs, static_cast<u16>(vector >> 16));
  s.rip = vector & 0xffff;
  set_flags(s.rflags & ~(kIf | kTf | kAc | kRf));
}

// ---- protected mode and virtual-8086 mode

void Cpu::enter_legacy(const Event& event) {
  const u32 at = event.vector * 8u, error = at | 2 | ext_;
  if (at + 7 > s.idtr.limit) raise(kGp, error);
  Descriptor gate;
  gate.low = load_system(s.idtr.base + at, 8);
  const unsigned type = gate.type();
  if (!gate.is_system() || (type != kTaskGate && (type & 6) != 6)) raise(kGp, error);
  if (event.software && gate.dpl() < s.cpl) raise(kGp, error);
  if (!gate.present()) raise(kNp, error);
  if (type == kTaskGate) return task_gate(gate, TaskSwitch::kGate, &event, event.return_rip);
  enter_legacy_gate(event, gate);
}

void Cpu::enter_legacy_gate(const Event& event, const Descriptor& gate) {
  Descriptor code = handler_code(gate);
  const unsigned cpl = code.is_conforming() ? s.cpl : code.dpl();
  if (v8086() && cpl != 0) raise(kGp, error_of(gate.gate_selector()) | ext_);
  if (cpl < s.cpl) return enter_legacy_inner(event, gate, code);
  enter_legacy_same(event, gate, code, cpl);
}

void Cpu::enter_legacy_same(const Event& event, const Descriptor& gate, Descriptor& code, unsigned cpl) {
  const unsigned size = gate.type() & 8 ? 4 : 2;
  const u64 offset = size == 2 ? gate.gate_offset() & 0xffff : gate.gate_offset();
  if (offset > code.limit()) raise(kGp, ext_);
  StackCursor stack{*this, s.seg[kSs], s.gpr[kRsp], stack_size(), s.tlb_space, ext_};
  stack.push(saved_flags(event), size);
  stack.push(s.seg[kCs].selector, size);
  stack.push(event.return_rip, size);
  if (event.has_error) stack.push(event.error, size);
  set_stack_pointer(stack.sp());
  commit_code(code, gate.gate_selector(), cpl, offset);
  flags_after_entry(!(gate.type() & 1));
}

void Cpu::enter_legacy_inner(const Event& event, const Descriptor& gate, Descriptor& code) {
  const unsigned size = gate.type() & 8 ? 4 : 2, cpl = code.dpl();
  const u64 offset = size == 2 ? gate.gate_offset() & 0xffff : gate.gate_offset();
  const StackTarget target = inner_stack(cpl);
  Descriptor ss = inner_stack_segment(target.ss, cpl);
  if (offset > code.limit()) raise(kGp, ext_);
  const Segment segment = ss.segment(target.ss);
  StackCursor stack{*this, segment, target.sp, segment.big() ? 4u : 2u, space_for(cpl), error_of(target.ss) | ext_};
  const bool from_v8086 = v8086();
  // The new stack is a protected-mode segment, whatever mode we leave: with VM clear its rights and size count.
  const u64 flags = saved_flags(event);
  const u64 old_flags = s.rflags;
  if (from_v8086)
    for (const Seg seg : {kGs, kFs, kDs, kEs}) stack.push(s.seg[seg].selector, size);
  stack.push(s.seg[kSs].selector, size);
  stack.push(s.gpr[kRsp], size);
  stack.push(flags, size);
  stack.push(s.seg[kCs].selector, size);
  stack.push(event.return_rip, size);
  if (event.has_error) stack.push(event.error, size);
  mark_accessed(ss);
  set_flags(old_flags & ~kVm);
  if (from_v8086)
    for (const Seg seg : {kGs, kFs, kDs, kEs}) set_null_segment(seg, 0);
  set_segment(kSs, ss, target.ss);
  commit_code(code, gate.gate_selector(), cpl, offset);
  set_stack_pointer(stack.sp());
  flags_after_entry(!(gate.type() & 1));
}

// ---- long mode

void Cpu::enter_long(const Event& event) {
  const u32 at = event.vector * 16u, error = event.vector * 8u | 2 | ext_;
  if (at + 15 > s.idtr.limit) raise(kGp, error);
  Descriptor gate;
  gate.low = load_system(s.idtr.base + at, 8);
  gate.high = load_system(s.idtr.base + at + 8, 8) & 0xffffffff;
  if (!gate.is_system() || (gate.type() != kInterruptGate32 && gate.type() != kTrapGate32)) raise(kGp, error);
  if (event.software && gate.dpl() < s.cpl) raise(kGp, error);
  if (!gate.present()) raise(kNp, error);
  Descriptor code = handler_code(gate);
  if (!canonical(gate.gate_offset())) raise(kGp, ext_);
  const unsigned cpl = code.is_conforming() ? s.cpl : code.dpl();
  const unsigned ist = static_cast<unsigned>(bits(gate.low, 34, 32));
  u64 rsp = s.gpr[kRsp];
  if (ist != 0) {
    rsp = tss_field(28 + 8 * ist, 8);
    if (!canonical(rsp)) raise(kSsFault, ext_);
  } else if (cpl < s.cpl) {
    rsp = inner_stack(cpl).sp;
  }
  StackCursor stack{*this, Segment{}, rsp & ~u64{15}, 8, space_for(cpl), ext_};
  stack.push(s.seg[kSs].selector, 8);
  stack.push(s.gpr[kRsp], 8);
  stack.push(saved_flags(event), 8);
  stack.push(s.seg[kCs].selector, 8);
  stack.push(event.return_rip, 8);
  if (event.has_error) stack.push(event.error, 8);
  if (cpl != s.cpl) set_null_segment(kSs, static_cast<u16>(cpl));
  commit_code(code, gate.gate_selector(), cpl, gate.gate_offset());
  s.gpr[kRsp] = stack.sp();
  flags_after_entry(gate.type() == kInterruptGate32);
}

}  // namespace bulkhead::engine::dbt
