// The guest-physical frames of a PVH guest, as the Xen ABI sees them: which are its own, which are ours, which it gave
// back. Any thread.
#pragma once
#include <atomic>
#include <vector>

#include "abi/xen/ports.h"
#include "memory/guest_memory.h"

namespace bulkhead::machine {

class PvhFrames final : public abi::xen::Frames {
 public:
  // Pages of ours go into RAM or below `devices`, or from 4 GiB on.
  PvhFrames(GuestMemory& memory, Gpa devices);

  std::byte* shareable(u64 frame) override;
  void note_written(u64 frame) override;
  i64 place(u64 frame, std::byte* page) override;
  u64 frame_of(const std::byte* our_page) override;
  i64 release(u64 frame) override;
  i64 populate(u64& frame) override;
  u64 current_pages() const override { return pages_.load(std::memory_order_relaxed); }
  u64 maximum_pages() const override { return memory_.size() / kPageSize; }
  u64 maximum_frame() const override;

 private:
  bool in_ram(u64 frame) const;
  std::atomic<u64>& word(u64 number) { return gone_[number / 64]; }
  bool gone(u64 number) { return word(number).load(std::memory_order_acquire) >> number % 64 & 1; }
  bool may_hold_ours(u64 frame) const;

  GuestMemory& memory_;
  const Gpa devices_;
  std::vector<std::atomic<u64>> gone_;  // one bit per page of RAM, by its number in the memfd: given back
  std::atomic<u64> pages_;
};

}  // namespace bulkhead::machine
