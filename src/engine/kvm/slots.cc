#include "engine/kvm/slots.h"

#include "base/log.h"
#include "engine/kvm/ioctl.h"
#include "engine/kvm/kvm_api.h"

namespace bulkhead::engine::kvm {

Result<void> MemorySlots::install() {
  {
    Lock lock{mutex_};
    for (const RamRange& range : memory_.ranges())
      BH_TRY(set(next_++, range.start, range.size, memory_.host(range.start, range.size)));
  }
  memory_.set_write_observer(this);
  for (u64 number = 0; number < memory_.extra_pages(); ++number)
    if (const auto at = memory_.extra_place(number); at && memory_.host(*at, kPageSize) == memory_.extra_page(number))
      remapped(*at);
  return {};
}

Result<void> MemorySlots::set(u32 slot, Gpa at, u64 size, std::byte* host, u32 flags) {
  kvm_userspace_memory_region region{};
  region.slot = slot;
  region.flags = flags;
  region.guest_phys_addr = at.value;
  region.memory_size = size;
  region.userspace_addr = reinterpret_cast<u64>(host);
  if (kvm_ioctl(vm_, KVM_SET_USER_MEMORY_REGION, &region) == 0) return {};
  const int error = errno;
  const char* const advice = error == ENOMEM   ? "; the host is out of memory for it, or a limit (ulimit -v, cgroup) is"
                             : error == EEXIST ? "; it overlaps other memory of the guest"
                             : error == EINVAL ? "; more slots or another place than this KVM allows"
                                               : "";
  return fail("KVM takes no memory slot {} for {} KiB at {:#x}: {}{}", slot, size >> 10, at.value, std::strerror(error),
              advice);
}

void MemorySlots::written(Gpa, u64) {}

// Looks anew: two threads may tell of the same frame in either order.
void MemorySlots::remapped(Gpa page) {
  Lock lock{mutex_};
  if (const auto known = pages_.find(page); known != pages_.end()) {
    (void)set(known->second, page, 0, nullptr);
    free_.push_back(known->second);
    pages_.erase(known);
  }
  const auto number = memory_.extra_at(page);
  if (!number) return;
  if (free_.empty()) free_.push_back(next_++);
  if (auto result = set(free_.back(), page, kPageSize, memory_.extra_page(*number)); !result)
    return log_warning("the guest does not see a page of ours: {}", result.error().message);
  pages_[page] = free_.back();
  free_.pop_back();
}

}  // namespace bulkhead::engine::kvm
