#include "engine/dbt/cpu/cpu.h"

#include <new>

#include "engine/dbt/cpu/lapic.h"
#include "engine/dbt/cpu/shared.h"
#include "engine/dbt/cpu/stack.h"

namespace bulkhead::engine::dbt {
namespace {

u64 host_tsc() { return __builtin_ia32_rdtsc(); }

}  // namespace

Cpu::Cpu(SharedState& the_shared, unsigned the_index, CpuState* place)
    : s{place != nullptr ? *new(place) CpuState : *new CpuState},
      shared{the_shared},
      index{the_index},
      features{CpuFeatures::of(the_shared.cpu_model)},
      owns_state_{place == nullptr} {
  for (auto& space : s.tlb)
    for (TlbEntry& entry : space) entry = {kNoTag, kNoTag, 0, 0};
  // The guest's TSC starts at 0, and is the same on all vCPUs.
  s.tsc_offset = shared.cpus.empty() ? 0 - host_tsc() : shared.cpus.front()->s.tsc_offset;
  lapic = std::make_unique<Lapic>(shared, index, s);
  reset(false);
}

Cpu::~Cpu() {
  lapic.reset();  // it refers to the state
  if (owns_state_) delete &s;
}

// ---- escapes

void Cpu::abandon(Escape kind) {
  escape_kind = kind;
  no_exit_ = false;
  ext_ = 0;
  data_breakpoints_hit_ = 0;
  step_override_ = -1;
  keep_rf_ = false;
  io_log.next = 0;
  if (kind == Escape::kFault) io_log.done = 0;
  if (atomic_code_page_ != ~u64{0}) finish_atomic();
  BH_ASSERT(escape != nullptr);
  std::longjmp(escape, 1);
}

void Cpu::raise(Vector vector) {
  fault = {vector, false, 0, 0};
  abandon(Escape::kFault);
}
void Cpu::raise(Vector vector, u32 error) {
  fault = {vector, true, error, 0};
  abandon(Escape::kFault);
}
void Cpu::raise_page_fault(u64 linear, u32 error) {
  fault = {kPageFault, true, error, linear};
  abandon(Escape::kFault);
}
void Cpu::escape_exit(Exit&& the_exit) {
  exit = std::move(the_exit);
  abandon(Escape::kExit);
}

// ---- derived state

CodeSize Cpu::code_size() const {
  const Segment& cs = s.seg[kCs];
  if (long_mode() && cs.long_mode()) return CodeSize::k64;
  return cs.big() ? CodeSize::k32 : CodeSize::k16;
}

void Cpu::update_cpl(u8 cpl) {
  s.cpl = cpl;
  s.tlb_space = space_for(cpl);
}

void Cpu::mode_changed() {
  s.tlb_space = space_for(s.cpl);
  data_breakpoints_ = false;
  for (unsigned i = 0; i < 4; ++i)
    if (bits(s.dr[7], 2 * i + 1, 2 * i) != 0 && bits(s.dr[7], 17 + 4 * i, 16 + 4 * i) != 0) data_breakpoints_ = true;
  debug_active_ = (s.rflags & kTf) || (s.dr[7] & 0xff);
}

void Cpu::set_flags(u64 value) {
  const u64 changed = s.rflags ^ value;
  s.rflags = value;
  if (changed & (kAc | kTf | kVm)) mode_changed();
  if (changed & value & kIf) interrupts_may_be_deliverable();
}

void Cpu::write_rflags(u64 value, u64 changeable) {
  constexpr u64 kDefined = kArithmeticFlags | kTf | kIf | kDf | kIopl | kNt | kRf | kVm | kAc | kVif | kVip | kId;
  changeable &= kDefined;
  set_flags((s.rflags & ~changeable) | (value & changeable) | 2);
}

u64 Cpu::read_tsc() const { return host_tsc() + s.tsc_offset; }

void Cpu::write_tsc(u64 value) {
  const u64 offset = value - host_tsc();
  s.tsc_adjust += offset - s.tsc_offset;
  s.tsc_offset = offset;
  lapic->tsc_offset_changed();
}

// ---- stack

unsigned Cpu::stack_size() const {
  if (code_size() == CodeSize::k64) return 8;
  return s.seg[kSs].big() ? 4 : 2;
}

u64 Cpu::stack_pointer() const { return s.gpr[kRsp] & mask_for_size(stack_size()); }

void Cpu::set_stack_pointer(u64 value) {
  u64& rsp = s.gpr[kRsp];
  const unsigned size = stack_size();
  rsp = size == 2 ? (rsp & ~u64{0xffff}) | (value & 0xffff) : value & mask_for_size(size);
}

void Cpu::push(u64 value, unsigned size) {
  const u64 sp = (stack_pointer() - size) & mask_for_size(stack_size());
  store(linear(kSs, sp, size, Access::kWrite), size, value);
  set_stack_pointer(sp);
}

u64 Cpu::pop(unsigned size) {
  const u64 sp = stack_pointer();
  const u64 value = load(linear(kSs, sp, size, Access::kRead), size);
  set_stack_pointer(sp + size);
  return value;
}

}  // namespace bulkhead::engine::dbt
