// Far jumps, calls and returns, direct and through call gates [SDM-3A §5.8].
#include "engine/dbt/cpu/cpu.h"
#include "engine/dbt/cpu/stack.h"

namespace bulkhead::engine::dbt {

// The checks on where a code segment is entered that do not depend on privilege.
void Cpu::check_code_target(const Descriptor& code, u64 offset, u32 error) {
  if (!code.present()) raise(kNp, error);
  if (long_mode() && code.long_mode()) {
    if (code.big()) raise(kGp, error);
    if (!canonical(offset)) raise(kGp, ext_);
  } else if (offset > code.limit()) {
    raise(kGp, ext_);
  }
}

void Cpu::commit_code(Descriptor& code, u16 selector, unsigned cpl, u64 offset) {
  mark_accessed(code);
  set_segment(kCs, code, static_cast<u16>((selector & 0xfffc) | cpl));
  s.rip = offset;
  update_cpl(static_cast<u8>(cpl));
}

// The descriptor that a direct far jump or call names: code (checked for privilege), or a system descriptor.
Descriptor Cpu::direct_code_target(u16 selector) {
  if (is_null(selector)) raise(kGp, 0);
  const Descriptor d = read_system_descriptor(selector, kGp);
  if (d.is_system()) return d;
  const u32 error = error_of(selector);
  if (!d.is_code()) raise(kGp, error);
  if (d.is_conforming() ? d.dpl() > s.cpl : rpl_of(selector) > s.cpl || d.dpl() != s.cpl) raise(kGp, error);
  return d;
}

void Cpu::far_jump(u16 selector, u64 offset, unsigned operand_size) {
  (void)operand_size;
  if (real_addressing()) {
    if (offset > s.seg[kCs].limit) raise(kGp, 0);
    set_real_mode_segment(kCs, selector);
    s.rip = offset;
    return;
  }
  Descriptor d = direct_code_target(selector);
  if (d.is_system()) return jump_through(d, selector, false, 0);
  check_code_target(d, offset, error_of(selector));
  commit_code(d, selector, s.cpl, offset);
}

void Cpu::far_call(u16 selector, u64 offset, unsigned operand_size, u64 return_rip) {
  StackCursor stack{*this};
  if (real_addressing()) {
    if (offset > s.seg[kCs].limit) raise(kGp, 0);
    stack.push(s.seg[kCs].selector, operand_size);
    stack.push(return_rip, operand_size);
    set_stack_pointer(stack.sp());
    set_real_mode_segment(kCs, selector);
    s.rip = offset;
    return;
  }
  Descriptor d = direct_code_target(selector);
  if (d.is_system()) return jump_through(d, selector, true, return_rip);
  check_code_target(d, offset, error_of(selector));
  stack.push(s.seg[kCs].selector, operand_size);
  stack.push(return_rip, operand_size);
  set_stack_pointer(stack.sp());
  commit_code(d, selector, s.cpl, offset);
}

// ---- gates

void Cpu::jump_through(const Descriptor& d, u16 selector, bool call, u64 return_rip) {
  const u32 error = error_of(selector);
  const unsigned type = d.type();
  if (long_mode() ? type != kCallGate32
                  : type != kCallGate16 && type != kCallGate32 && type != kTaskGate && type != kTss16 && type != kTss32)
    raise(kGp, error);
  if (d.dpl() < s.cpl || d.dpl() < rpl_of(selector)) raise(kGp, error);
  if (!d.present()) raise(kNp, error);
  const TaskSwitch kind = call ? TaskSwitch::kCall : TaskSwitch::kJump;
  if (type == kTaskGate || type == kTss16 || type == kTss32) return_rip = next_instruction();
  if (type == kTaskGate) return task_gate(d, kind, nullptr, return_rip);
  if (type == kTss16 || type == kTss32) return task_switch(selector, kind, nullptr, return_rip);
  if (call) return call_gate(d, selector, return_rip);
  Descriptor code = gate_code_target(d, selector, true);
  commit_code(code, d.gate_selector(), s.cpl, type == kCallGate16 ? d.gate_offset() & 0xffff : d.gate_offset());
}

Descriptor Cpu::gate_code_target(const Descriptor& gate, u16 gate_selector, bool jump) {
  (void)gate_selector;
  const u16 selector = gate.gate_selector();
  if (is_null(selector)) raise(kGp, 0);
  const Descriptor code = read_descriptor(selector, kGp);
  const u32 error = error_of(selector);
  if (!code.is_code() || code.dpl() > s.cpl) raise(kGp, error);
  if (jump && !code.is_conforming() && code.dpl() != s.cpl) raise(kGp, error);
  if (long_mode() && (!code.long_mode() || code.big())) raise(kGp, error);
  check_code_target(code, gate.type() == kCallGate16 ? gate.gate_offset() & 0xffff : gate.gate_offset(), error);
  return code;
}

void Cpu::call_gate(const Descriptor& gate, u16 selector, u64 return_rip) {
  Descriptor code = gate_code_target(gate, selector, false);
  if (!code.is_conforming() && code.dpl() < s.cpl) return inner_call(gate, code, return_rip);
  const unsigned size = long_mode() ? 8 : gate.type() == kCallGate16 ? 2 : 4;
  // From compatibility mode into 64-bit code the stack is used as the new mode sees it.
  StackCursor stack{*this, s.seg[kSs], s.gpr[kRsp], long_mode() ? 8 : stack_size(), s.tlb_space, 0};
  stack.push(s.seg[kCs].selector, size);
  stack.push(return_rip, size);
  commit_code(code, gate.gate_selector(), s.cpl, size == 2 ? gate.gate_offset() & 0xffff : gate.gate_offset());
  set_stack_pointer(stack.sp());
}

void Cpu::inner_call(const Descriptor& gate, Descriptor& code, u64 return_rip) {
  const unsigned cpl = code.dpl();
  const bool wide = long_mode();
  const unsigned size = wide ? 8 : gate.type() == kCallGate16 ? 2 : 4;
  const StackTarget target = inner_stack(cpl);
  Segment ss;
  Descriptor ss_descriptor;
  if (!wide) {
    ss_descriptor = inner_stack_segment(target.ss, cpl);
    ss = ss_descriptor.segment(target.ss);
  }
  const unsigned width = wide ? 8 : ss.big() ? 4 : 2;
  StackCursor stack{*this, ss, target.sp, width, space_for(cpl), wide ? 0 : error_of(target.ss)};
  StackCursor old{*this};
  stack.push(s.seg[kSs].selector, size);
  stack.push(s.gpr[kRsp], size);
  const unsigned parameters = wide ? 0 : static_cast<unsigned>(bits(gate.low, 36, 32));
  for (unsigned i = parameters; i-- > 0;) stack.push(old.peek(u64{i} * size, size), size);
  stack.push(s.seg[kCs].selector, size);
  stack.push(return_rip, size);
  if (wide) {
    set_null_segment(kSs, static_cast<u16>(cpl));
  } else {
    mark_accessed(ss_descriptor);
    set_segment(kSs, ss_descriptor, target.ss);
  }
  commit_code(code, gate.gate_selector(), cpl, size == 2 ? gate.gate_offset() & 0xffff : gate.gate_offset());
  set_stack_pointer(stack.sp());
}

// ---- returns

// The code segment that a far return or IRET goes to: same or outer privilege.
Descriptor Cpu::return_code_target(u16 cs) {
  if (is_null(cs)) raise(kGp, 0);
  const Descriptor code = read_descriptor(cs, kGp);
  const u32 error = error_of(cs);
  const unsigned rpl = rpl_of(cs);
  if (!code.is_code() || rpl < s.cpl) raise(kGp, error);
  if (code.is_conforming() ? code.dpl() > rpl : code.dpl() != rpl) raise(kGp, error);
  return code;
}

// After a return to an outer ring it must not keep segments that it could not have loaded.
void Cpu::drop_inner_data_segments() {
  for (const Seg seg : {kEs, kFs, kGs, kDs}) {
    const Segment& segment = s.seg[seg];
    const bool conforming_code = (segment.attributes & 0x1c) == 0x1c;
    if (!segment.unusable() && !conforming_code && segment.dpl() < s.cpl) set_null_segment(seg, 0);
  }
}

// Everything but flags of a return with a new stack: to an outer ring, or any IRET from 64-bit mode. `extra`: bytes
// that RET n releases on the outer stack too.
void Cpu::return_outer(Descriptor& code, u16 cs, u64 rip, u16 ss, u64 rsp, u64 extra) {
  const unsigned rpl = rpl_of(cs);
  const bool to_64 = long_mode() && code.long_mode();
  Descriptor stack;
  if (is_null(ss)) {
    if (!to_64 || rpl == 3 || rpl_of(ss) != rpl) raise(kGp, 0);
  } else {
    stack = read_descriptor(ss, kGp);
    const u32 error = error_of(ss);
    if (rpl_of(ss) != rpl || !stack.is_writable_data() || stack.dpl() != rpl) raise(kGp, error);
    if (!stack.present()) raise(kSsFault, error);
  }
  check_code_target(code, rip, error_of(cs));
  if (!is_null(ss)) mark_accessed(stack);
  const bool outer = rpl > s.cpl;
  commit_code(code, cs, rpl, rip);
  if (is_null(ss)) {
    set_null_segment(kSs, ss);
  } else {
    set_segment(kSs, stack, ss);
  }
  set_stack_pointer(rsp + extra);
  if (outer) drop_inner_data_segments();
}

void Cpu::far_return(unsigned operand_size, u16 pop_bytes) {
  StackCursor stack{*this};
  const u64 rip = stack.pop(operand_size);
  const u16 cs = static_cast<u16>(stack.pop(operand_size));
  stack.skip(pop_bytes);
  if (real_addressing()) {
    if (rip > s.seg[kCs].limit) raise(kGp, 0);
    set_stack_pointer(stack.sp());
    set_real_mode_segment(kCs, cs);
    s.rip = rip;
    return;
  }
  Descriptor code = return_code_target(cs);
  if (rpl_of(cs) == s.cpl) {
    check_code_target(code, rip, error_of(cs));
    set_stack_pointer(stack.sp());
    return commit_code(code, cs, s.cpl, rip);
  }
  const u64 rsp = stack.pop(operand_size);
  const u16 ss = static_cast<u16>(stack.pop(operand_size));
  return_outer(code, cs, rip, ss, rsp, pop_bytes);
}

}  // namespace bulkhead::engine::dbt
