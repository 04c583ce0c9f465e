#include "memory/extra_pages.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>

#include "base/assert.h"
#include "base/bits.h"

namespace bulkhead {

u64 GuestMemory::extra_pages() const { return extra_ != nullptr ? extra_->places.size() : 0; }

std::byte* GuestMemory::extra_page(u64 number) const {
  BH_ASSERT(number < extra_pages());
  return base_ + size_ + number * kPageSize;
}

std::optional<u64> GuestMemory::extra_number(const std::byte* host) const {
  const std::byte* const first = base_ + size_;
  if (host < first || host >= first + extra_pages() * kPageSize) return std::nullopt;
  const u64 offset = static_cast<u64>(host - first);
  return offset % kPageSize == 0 ? std::optional{offset / kPageSize} : std::nullopt;
}

std::optional<Gpa> GuestMemory::extra_place(u64 number) const {
  if (number >= extra_pages()) return std::nullopt;
  const u64 at = extra_->places[number].load(std::memory_order_acquire);
  return at != Extra::kNowhere ? std::optional{Gpa{at}} : std::nullopt;
}

std::optional<u64> GuestMemory::extra_at(Gpa at) const {
  const u64 page = align_down(at.value, kPageSize);
  if (extra_ == nullptr || page < extra_->low.load(std::memory_order_acquire) ||
      page > extra_->high.load(std::memory_order_acquire))
    return std::nullopt;
  for (u64 i = 0; i < extra_->places.size(); ++i)
    if (extra_->places[i].load(std::memory_order_acquire) == page) return i;
  return std::nullopt;
}

std::byte* GuestMemory::extra_host(Gpa at, u64 length) const {
  if (length > kPageSize - at.value % kPageSize) return nullptr;
  const auto number = extra_at(at);
  return number ? extra_page(*number) + at.value % kPageSize : nullptr;
}

std::optional<u64> GuestMemory::page_number(Gpa at) const {
  for (const RamRange& range : ranges_)
    if (range.contains(at, 1)) return (range.file_offset + (at - range.start)) / kPageSize;
  if (const auto number = extra_at(at)) return size_ / kPageSize + *number;
  return std::nullopt;
}

// A page in RAM is hidden by mapping the extra page over it: whoever holds the host address sees the change at once.
bool GuestMemory::place_extra(u64 number, Gpa at) {
  BH_ASSERT(number < extra_pages() && is_aligned(at.value, kPageSize));
  {
    Lock lock{extra_->mutex};
    if (const auto there = extra_at(at)) return *there == number;
  }
  remove_extra(number);
  {
    Lock lock{extra_->mutex};
    if (extra_at(at)) return false;
    std::byte* const ram = host(at, kPageSize);
    if (ram != nullptr && ::mmap(ram, kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
                                 fd_.get(), static_cast<off_t>(size_ + number * kPageSize)) == MAP_FAILED)
      return false;
    if (at.value < extra_->low.load()) extra_->low = at.value;
    if (at.value > extra_->high.load()) extra_->high = at.value;
    extra_->places[number].store(at.value, std::memory_order_release);
  }
  note_remapped(at);
  return true;
}

// In RAM the host's address of the frame stays, and whoever follows it sees the other page.
void GuestMemory::note_remapped(Gpa page) const {
  const auto holds = [&](const RamRange& range) { return range.contains(page, kPageSize); };
  if (observer_ != nullptr && std::ranges::none_of(ranges_, holds)) observer_->remapped(page);
}

void GuestMemory::remove_extra(u64 number) {
  BH_ASSERT(number < extra_pages());
  u64 at = Extra::kNowhere;
  {
    Lock lock{extra_->mutex};
    at = extra_->places[number].exchange(Extra::kNowhere);
    if (at == Extra::kNowhere) return;
    for (const RamRange& range : ranges_)
      if (range.contains(Gpa{at}, kPageSize)) {
        const u64 offset = range.file_offset + (at - range.start.value);
        void* const back = ::mmap(base_ + offset, kPageSize, PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd_.get(), static_cast<off_t>(offset));
        BH_ASSERT(back != MAP_FAILED);  // it takes the place of a mapping that is there
      }
  }
  note_remapped(Gpa{at});
}

// By the memfd and not by the address: what an extra page hides is given back, and not that page.
void GuestMemory::discard(Gpa at, u64 length) {
  for (const RamRange& range : ranges_)
    if (range.contains(at, length))
      (void)::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        static_cast<off_t>(range.file_offset + (at - range.start)), static_cast<off_t>(length));
}

}  // namespace bulkhead
