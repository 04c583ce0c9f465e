// A stack being pushed to or popped from while RSP stays as it was: nothing is committed until the whole transfer has
// worked.
#pragma once
#include "engine/dbt/cpu/cpu.h"

namespace bulkhead::engine::dbt {

class StackCursor {
 public:
  // The present stack.
  explicit StackCursor(Cpu& cpu)
      : StackCursor{cpu, cpu.s.seg[kSs], cpu.s.gpr[kRsp], cpu.stack_size(), cpu.s.tlb_space, 0} {}
  // Another one. `width` 2, 4 or 8 as stack_size(); `error` is the #SS error code when it has no room.
  StackCursor(Cpu& cpu, const Segment& ss, u64 sp, unsigned width, TlbSpace space, u32 error)
      : cpu_{cpu}, ss_{ss}, sp_{sp & mask_for_size(width)}, width_{width}, space_{space}, error_{error} {}

  void push(u64 value, unsigned size) {
    const u64 sp = (sp_ - size) & mask_for_size(width_);
    cpu_.store_in(space_, linear(sp, size, Access::kWrite), size, value);
    sp_ = sp;
  }
  u64 pop(unsigned size) {
    const u64 value = cpu_.load_in(space_, linear(sp_, size, Access::kRead), size);
    skip(size);
    return value;
  }
  // The value `offset` bytes above the top.
  u64 peek(u64 offset, unsigned size) {
    return cpu_.load_in(space_, linear((sp_ + offset) & mask_for_size(width_), size, Access::kRead), size);
  }
  void skip(u64 bytes) { sp_ = (sp_ + bytes) & mask_for_size(width_); }
  u64 sp() const { return sp_; }

 private:
  u64 linear(u64 sp, unsigned size, Access access) const {
    return cpu_.linear_in(ss_, true, width_ == 8, sp, size, access, error_);
  }
  Cpu& cpu_;
  Segment ss_;
  u64 sp_;
  unsigned width_;
  TlbSpace space_;
  u32 error_;
};

}  // namespace bulkhead::engine::dbt
