// The guest's memory in KVM's memory slots: one for each RAM range, one for each of our pages that lies outside of RAM.
// A page of ours within RAM needs none: it is mapped over the RAM that it hides, and KVM follows the mapping.
#pragma once
#include <atomic>
#include <map>

#include "base/sync.h"
#include "memory/guest_memory.h"

namespace bulkhead::engine::kvm {

class MemorySlots final : public WriteObserver {
 public:
  // Becomes the memory's observer. Both outlive us.
  MemorySlots(int vm, GuestMemory& memory) : vm_{vm}, memory_{memory}, written_(memory.size() / kPageSize / 64 + 1) {}
  // Pages come by dirty rings and note(), not by KVM's log.
  void use_rings() { rings_ = true; }
  MemorySlots(const MemorySlots&) = delete;
  ~MemorySlots() override { memory_.set_write_observer(nullptr); }
  Result<void> install();  // once. Errors: KVM refuses a slot; says which and why

  bool show(Gpa at, const std::byte* page);  // for reading only

  // As Partition has them; of RAM.
  Result<void> track(bool on);
  Result<std::vector<u64>> take();
  // A page that a dirty ring names.
  void note(u32 slot, u64 page);

  void written(Gpa at, u64 length) override;
  void remapped(Gpa page) override;

 private:
  Result<void> set(u32 slot, Gpa at, u64 size, std::byte* host, u32 flags = 0);

  Result<void> take_log(u32 slot) BH_REQUIRES(mutex_);
  void mark(u64 number) { written_[number / 64].fetch_or(u64{1} << number % 64, std::memory_order_relaxed); }

  const int vm_;
  GuestMemory& memory_;
  std::atomic<bool> tracking_{false};
  std::vector<std::atomic<u64>> written_;  // a bit for each page of RAM, by its number
  Mutex mutex_;
  std::map<Gpa, u32> pages_ BH_GUARDED_BY(mutex_);  // slots of pages outside of RAM
  bool rings_ = false;
  u32 next_ BH_GUARDED_BY(mutex_) = 0;
  std::vector<u32> free_ BH_GUARDED_BY(mutex_);
};

}  // namespace bulkhead::engine::kvm
