#include "engine/kvm/slots.h"

#include <bit>

#include "base/log.h"
#include "engine/kvm/ioctl.h"
#include "engine/kvm/kvm_api.h"

namespace bulkhead::engine::kvm {

Result<void> MemorySlots::install() {
  memory_.want_large_pages();
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

void MemorySlots::written(Gpa at, u64 length) {
  if (!tracking_.load(std::memory_order_relaxed) || length == 0) return;
  for (u64 page = at.value / kPageSize; page <= (at.value + length - 1) / kPageSize; ++page)
    if (const auto number = memory_.page_number(Gpa{page * kPageSize}); number && *number / 64 < written_.size())
      mark(*number);
}

bool MemorySlots::show(Gpa at, const std::byte* page) {
  Lock lock{mutex_};
  return set(next_++, at, kPageSize, const_cast<std::byte*>(page), KVM_MEM_READONLY).has_value();
}

// ---- written pages. RAM's slots are the first.

Result<void> MemorySlots::track(bool on) {
  Lock lock{mutex_};
  u32 slot = 0;
  for (const RamRange& range : memory_.ranges())
    BH_TRY(
        set(slot++, range.start, range.size, memory_.host(range.start, range.size), on ? KVM_MEM_LOG_DIRTY_PAGES : 0));
  for (std::atomic<u64>& word : written_) word.store(0, std::memory_order_relaxed);
  tracking_ = on;
  return {};
}

Result<void> MemorySlots::take_log(u32 slot) {
  const RamRange& range = memory_.ranges()[slot];
  std::vector<u64> bitmap((range.size / kPageSize + 63) / 64);
  kvm_dirty_log log{};
  log.slot = slot;
  log.dirty_bitmap = bitmap.data();
  if (kvm_ioctl(vm_, KVM_GET_DIRTY_LOG, &log) != 0) return fail_errno("KVM does not tell which pages were written");
  for (u64 page = 0; page < range.size / kPageSize; ++page)
    if (bitmap[page / 64] >> page % 64 & 1) note(slot, page);
  return {};
}

void MemorySlots::note(u32 slot, u64 page) {
  const auto ranges = memory_.ranges();
  if (slot < ranges.size() && page < ranges[slot].size / kPageSize) mark(ranges[slot].file_offset / kPageSize + page);
}

Result<std::vector<u64>> MemorySlots::take() {
  Lock lock{mutex_};
  std::vector<u64> out;
  if (!tracking_) return out;
  for (u32 slot = 0; !rings_ && slot < memory_.ranges().size(); ++slot) BH_TRY(take_log(slot));
  for (u64 word = 0; word < written_.size(); ++word)
    for (u64 rest = written_[word].exchange(0, std::memory_order_relaxed); rest != 0; rest &= rest - 1)
      out.push_back(word * 64 + static_cast<u64>(std::countr_zero(rest)));
  return out;
}

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
