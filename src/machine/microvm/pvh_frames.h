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

  // Nothing else can become of RAM here; a page that leaves while it is held is another one when it comes back.
  std::byte* hold(u64 frame, abi::xen::Hold) override;
  void let_go(u64, abi::xen::Hold) override {}
  void note_written(u64 frame) override;
  i64 place(u64 frame, std::byte* page) override;
  u64 frame_of(const std::byte* our_page) override;
  i64 release(u64 frame) override;
  i64 populate(u64& frame) override;
  u64 current_pages() const override { return pages_.load(std::memory_order_relaxed); }
  u64 maximum_pages() const override { return memory_.size() / kPageSize; }
  u64 maximum_frame() const override;
  // RAM is at one place only.
  i16 map_grant(abi::xen::Caller&, u64, u64, u32) override;
  i16 unmap_grant(abi::xen::Caller&, u64, u64, u32, u64) override;

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
