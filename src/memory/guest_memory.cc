#include "memory/guest_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/bits.h"
#include "memory/extra_pages.h"
#include "memory/large_pages.h"

namespace bulkhead {

GuestMemory::GuestMemory() = default;

Result<GuestMemory> GuestMemory::create(std::vector<RamRange> ranges, u64 extra_pages) {
  std::ranges::sort(ranges, {}, &RamRange::start);
  u64 total = 0;
  Gpa end{0};
  for (RamRange& range : ranges) {
    if (range.size == 0 || !is_aligned(range.size, kPageSize) || !is_aligned(range.start.value, kPageSize))
      return fail("guest memory range at {:#x} of {} bytes is not a whole number of pages", range.start.value,
                  range.size);
    if (range.start < end || range.start.value + range.size < range.start.value)
      return fail("guest memory ranges overlap at {:#x}", range.start.value);
    range.file_offset = total;
    total += range.size;
    end = range.start + range.size;
  }
  if (total == 0) return fail("a guest needs some memory");

  GuestMemory memory;
  memory.fd_ = UniqueFd{::memfd_create("bulkhead-guest-ram", MFD_CLOEXEC)};
  if (!memory.fd_) return fail_errno("cannot create guest memory");
  const u64 mapped = total + extra_pages * kPageSize;
  if (::ftruncate(memory.fd_.get(), static_cast<off_t>(mapped)) != 0)
    return fail_errno("cannot size guest memory to {} bytes", mapped);
  void* const mapping = map_for_large_pages(memory.fd_.get(), mapped);
  if (mapping == MAP_FAILED) return fail_errno("cannot map {} bytes of guest memory", mapped);
  ::madvise(mapping, mapped, MADV_DONTDUMP);
  if (extra_pages != 0) memory.extra_ = std::make_unique<Extra>(extra_pages);
  memory.hold(mapping, mapped);
  memory.size_ = total;
  memory.ranges_ = std::move(ranges);
  return memory;
}

Result<GuestMemory> GuestMemory::create_pc(u64 bytes, Gpa hole_start, u64 extra_pages) {
  std::vector<RamRange> ranges{{Gpa{0}, std::min(bytes, hole_start.value)}};
  if (bytes > hole_start.value) ranges.push_back({Gpa{4_GiB}, bytes - hole_start.value});
  return create(std::move(ranges), extra_pages);
}

Result<GuestMemory> GuestMemory::seen_from(Gpa start) const {
  GuestMemory view;
  view.fd_ = UniqueFd{::fcntl(fd_.get(), F_DUPFD_CLOEXEC, 0)};
  if (!view.fd_) return fail_errno("cannot open guest memory once more");
  view.mapping_ = mapping_;
  view.large_page_thread_ = large_page_thread_;
  view.base_ = base_;
  view.size_ = size_;
  view.large_pages_ = large_pages_;
  view.ranges_ = ranges_;
  for (RamRange& range : view.ranges_) range.start = start + (range.start - ranges_.front().start);
  return view;
}

GuestMemory::GuestMemory(GuestMemory&& other) noexcept
    : fd_{std::move(other.fd_)},
      mapping_{std::move(other.mapping_)},
      large_page_thread_{std::move(other.large_page_thread_)},
      base_{std::exchange(other.base_, nullptr)},
      observer_{std::exchange(other.observer_, nullptr)},
      large_pages_{other.large_pages_},
      size_{std::exchange(other.size_, 0)},
      ranges_{std::move(other.ranges_)},
      extra_{std::move(other.extra_)} {}

GuestMemory::~GuestMemory() = default;

void GuestMemory::hold(void* mapping, u64 size) {
  base_ = static_cast<std::byte*>(mapping);
  large_page_thread_ = std::make_shared<LargePageThread>();
  mapping_ = std::shared_ptr<void>{mapping, [size](void* at) { ::munmap(at, size); }};
}

namespace {
// Calls copy(host, done, length) for each piece of [at, at+total) that lies in one range.
template <class Copy>
bool for_each_piece(const GuestMemory& memory, Gpa at, u64 total, Copy copy) {
  for (u64 done = 0; done < total;) {
    const Gpa here = at + done;
    u64 room = 0;
    for (const RamRange& range : memory.ranges())
      if (range.contains(here, 1)) room = range.size - (here - range.start);
    if (room == 0 && memory.host(here, 1) != nullptr) room = kPageSize - here.value % kPageSize;
    if (room == 0) return false;
    const u64 length = std::min(room, total - done);
    std::byte* const host = memory.host(here, length);
    if (host == nullptr) return false;  // an extra page went away just now
    copy(host, done, length);
    done += length;
  }
  return true;
}
}  // namespace

bool GuestMemory::read(Gpa at, std::span<std::byte> out) const {
  return for_each_piece(*this, at, out.size(),
                        [&](const std::byte* from, u64 done, u64 n) { std::memcpy(out.data() + done, from, n); });
}

bool GuestMemory::write(Gpa at, std::span<const std::byte> in) const {
  const bool all = for_each_piece(*this, at, in.size(),
                                  [&](std::byte* to, u64 done, u64 n) { std::memcpy(to, in.data() + done, n); });
  note_written(at, in.size());
  return all;
}

void GuestMemory::note_written(const std::byte* host, u64 length) const {
  if (observer_ == nullptr) return;
  const u64 offset = static_cast<u64>(host - base_);
  for (const RamRange& range : ranges_)
    if (offset >= range.file_offset && offset - range.file_offset < range.size)
      return note_written(range.start + (offset - range.file_offset), length);
  if (const auto at = extra_place((offset - size_) / kPageSize)) note_written(*at + offset % kPageSize, length);
}

}  // namespace bulkhead
