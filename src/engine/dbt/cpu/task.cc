// Hardware task switches [SDM-3A §8.3], with 16- and 32-bit task state segments. Not in long mode, which has none.
#include "engine/dbt/cpu/cpu.h"
#include "engine/dbt/cpu/stack.h"

namespace bulkhead::engine::dbt {

struct Cpu::Task {
  u64 cr3 = 0, rip = 0, flags = 0;
  std::array<u64, 8> gpr{};
  std::array<u16, 6> selectors{};
  u16 ldt = 0;
  bool trap = false, wide = false;
};

namespace {
// Offsets within the two formats [SDM-3A figures 8-2, 8-10].
struct Layout {
  unsigned word, cr3, rip, flags, gpr, segments, segment_step, segment_count, ldt, minimum;
};
constexpr Layout k32{4, 0x1c, 0x20, 0x24, 0x28, 0x48, 4, 6, 0x60, 0x67};
constexpr Layout k16{2, 0, 0x0e, 0x10, 0x12, 0x22, 2, 4, 0x2a, 0x2b};
const Layout& layout_of(unsigned type) { return type & 8 ? k32 : k16; }
}  // namespace

u64 Cpu::next_instruction() {
  u8 code[15];
  const u64 base = code_size() == CodeSize::k64 ? 0 : s.seg[kCs].base;
  const unsigned have = fetch(base + s.rip, code);
  spill_fpu();  // decode() may use vector registers
  Insn insn;
  return decode(code_size(), std::span{code, have}, insn) == DecodeStatus::kOk ? s.rip + insn.length : s.rip;
}

void Cpu::task_gate(const Descriptor& gate, TaskSwitch kind, const Event* event, u64 return_rip) {
  task_switch(gate.gate_selector(), kind, event, return_rip);
}

Descriptor Cpu::new_task(u16 selector, TaskSwitch kind) {
  const u32 error = error_of(selector) | ext_;
  const Vector vector = kind == TaskSwitch::kIret ? kTs : kGp;
  if (is_null(selector) || (selector & 4)) raise(vector, error);
  const Descriptor d = read_descriptor(selector, vector);
  const unsigned busy = kind == TaskSwitch::kIret ? 2 : 0;
  if (!d.is_system() || (d.type() & 7) != (1 | busy)) raise(vector, error);
  if (!d.present()) raise(kNp, error);
  if (d.limit() < layout_of(d.type()).minimum) raise(kTs, error);
  return d;
}

void Cpu::set_busy(u64 descriptor, bool busy) {
  const u64 byte = load_system(descriptor + 5, 1);
  store_system(descriptor + 5, 1, busy ? byte | 2 : byte & ~u64{2});
}

Cpu::Task Cpu::read_task(const Descriptor& tss) {
  const Layout& at = layout_of(tss.type());
  const u64 base = tss.base();
  Task task;
  task.wide = tss.type() & 8;
  if (task.wide) task.cr3 = load_system(base + at.cr3, 4);
  task.rip = load_system(base + at.rip, at.word);
  task.flags = load_system(base + at.flags, at.word);
  for (unsigned i = 0; i < 8; ++i) {
    task.gpr[i] = load_system(base + at.gpr + i * at.word, at.word);
    if (!task.wide) task.gpr[i] |= 0xffff0000;
  }
  for (unsigned i = 0; i < at.segment_count; ++i)
    task.selectors[i] = static_cast<u16>(load_system(base + at.segments + i * at.segment_step, 2));
  task.ldt = static_cast<u16>(load_system(base + at.ldt, 2));
  task.trap = task.wide && (load_system(base + 0x64, 1) & 1);
  return task;
}

void Cpu::save_task(u64 return_rip, bool clear_nt) {
  const Layout& at = layout_of(tss_type());
  const u64 base = s.tr.base;
  store_system(base + at.rip, at.word, return_rip);
  store_system(base + at.flags, at.word, clear_nt ? s.rflags & ~kNt : s.rflags);
  for (unsigned i = 0; i < 8; ++i) store_system(base + at.gpr + i * at.word, at.word, s.gpr[i]);
  for (unsigned i = 0; i < at.segment_count; ++i)
    store_system(base + at.segments + i * at.segment_step, 2, s.seg[i].selector);
}

void Cpu::load_task_ldt(u16 selector) {
  s.ldtr = {};
  s.ldtr.selector = selector;
  s.ldtr.attributes = kUnusable;
  if (is_null(selector)) return;
  const u32 error = error_of(selector) | ext_;
  if (selector & 4) raise(kTs, error);
  const Descriptor d = read_descriptor(selector, kTs);
  if (!d.is_system() || d.type() != kLdtType || !d.present()) raise(kTs, error);
  s.ldtr = d.segment(selector);
}

void Cpu::load_task_code(u16 selector) {
  const u32 error = error_of(selector) | ext_;
  if (is_null(selector)) raise(kTs, ext_);
  Descriptor code = read_descriptor(selector, kTs);
  const unsigned rpl = rpl_of(selector);
  if (!code.is_code() || (code.is_conforming() ? code.dpl() > rpl : code.dpl() != rpl)) raise(kTs, error);
  if (!code.present()) raise(kNp, error);
  mark_accessed(code);
  set_segment(kCs, code, selector);
}

void Cpu::load_task_segment(Seg seg, u16 selector) {
  const u32 error = error_of(selector) | ext_;
  if (is_null(selector)) {
    if (seg == kSs) raise(kTs, ext_);
    return;
  }
  Descriptor d = read_descriptor(selector, kTs);
  if (seg == kSs) {
    if (!d.is_writable_data() || d.dpl() != s.cpl || rpl_of(selector) != s.cpl) raise(kTs, error);
    if (!d.present()) raise(kSsFault, error);
  } else {
    if (!d.is_readable()) raise(kTs, error);
    if (!d.is_conforming() && (rpl_of(selector) > d.dpl() || s.cpl > d.dpl())) raise(kTs, error);
    if (!d.present()) raise(kNp, error);
  }
  mark_accessed(d);
  set_segment(seg, d, selector);
}

// From the commit point on: what faults now does so in the new task, with its selectors in place.
void Cpu::load_task(const Task& task) {
  if (task.wide && (s.cr0 & kCr0Pg)) {
    s.cr3 = task.cr3;
    flush_tlb(false);
  }
  s.rip = task.rip;
  for (unsigned i = 0; i < 8; ++i) s.gpr[i] = task.gpr[i];
  for (unsigned i = 0; i < 6; ++i) set_null_segment(static_cast<Seg>(i), task.selectors[i]);
  write_rflags(task.flags, ~u64{0});
  load_task_ldt(task.ldt);
  if (s.rflags & kVm) {
    update_cpl(3);
    for (unsigned i = 0; i < 6; ++i) set_real_mode_segment(static_cast<Seg>(i), task.selectors[i]);
    return;
  }
  update_cpl(static_cast<u8>(rpl_of(task.selectors[kCs])));
  load_task_code(task.selectors[kCs]);
  load_task_segment(kSs, task.selectors[kSs]);
  for (const Seg seg : {kEs, kDs, kFs, kGs}) load_task_segment(seg, task.selectors[seg]);
  if (s.rip > s.seg[kCs].limit) raise(kGp, ext_);
}

void Cpu::task_switch(u16 selector, TaskSwitch kind, const Event* event, u64 return_rip) {
  const bool outer = no_exit_;
  no_exit_ = true;  // nothing from here on could be executed twice
  const Descriptor tss = new_task(selector, kind);
  Task task = read_task(tss);
  const bool nested = kind == TaskSwitch::kCall || kind == TaskSwitch::kGate;
  save_task(return_rip, kind == TaskSwitch::kIret);
  if (nested) store_system(tss.base(), 2, s.tr.selector);
  if (!nested) set_busy(s.gdtr.base + (s.tr.selector & 0xfff8u), false);
  if (kind != TaskSwitch::kIret) set_busy(tss.address, true);

  s.tr = tss.segment(selector);
  s.tr.attributes |= 2;
  s.cr0 |= kCr0Ts;
  s.dr[7] &= ~u64{0x155};  // local breakpoints belong to the old task
  if (nested) task.flags |= kNt;
  load_task(task);
  mode_changed();
  if (event != nullptr && event->has_error) {
    StackCursor stack{*this};
    stack.push(event->error, task.wide ? 4 : 2);
    set_stack_pointer(stack.sp());
  }
  no_exit_ = outer;
  if (task.trap) {
    fault = {kDb, false, 0, u64{1} << 15};
    abandon(Escape::kFault);
  }
}

}  // namespace bulkhead::engine::dbt
