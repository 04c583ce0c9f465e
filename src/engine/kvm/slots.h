// The guest's memory in KVM's memory slots: one for each RAM range, one for each of our pages that lies outside of RAM.
// A page of ours within RAM needs none: it is mapped over the RAM that it hides, and KVM follows the mapping.
#pragma once
#include <functional>
#include <map>

#include "base/sync.h"
#include "memory/guest_memory.h"

namespace bulkhead::engine::kvm {

class MemorySlots final : public WriteObserver {
 public:
  // Becomes the memory's observer. Both outlive us.
  MemorySlots(int vm, GuestMemory& memory) : vm_{vm}, memory_{memory} {}
  MemorySlots(const MemorySlots&) = delete;
  ~MemorySlots() override { memory_.set_write_observer(nullptr); }
  Result<void> install();  // once. Errors: KVM refuses a slot; says which and why

  void written(Gpa at, u64 length) override;
  void remapped(Gpa page) override;

 private:
  Result<void> set(u32 slot, Gpa at, u64 size, std::byte* host, u32 flags = 0);

  const int vm_;
  GuestMemory& memory_;
  Mutex mutex_;
  std::map<Gpa, u32> pages_ BH_GUARDED_BY(mutex_);  // slots of pages outside of RAM
  u32 next_ BH_GUARDED_BY(mutex_) = 0;
  std::vector<u32> free_ BH_GUARDED_BY(mutex_);
};

}  // namespace bulkhead::engine::kvm
