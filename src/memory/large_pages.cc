#include "memory/large_pages.h"

#include <algorithm>

#include "base/bits.h"
#include "memory/guest_memory.h"

namespace bulkhead {
namespace {
#ifdef MADV_COLLAPSE
constexpr int kCollapse = MADV_COLLAPSE;
#else
constexpr int kCollapse = 25;  // since Linux 6.1
#endif
}  // namespace

void* map_for_large_pages(int fd, u64 length, int protection) {
  const u64 room = align_up(length, kPageSize) + kLargePage;
  void* const reserved = ::mmap(nullptr, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return MAP_FAILED;
  const u64 start = reinterpret_cast<u64>(reserved), at = align_up(start, kLargePage);
  const u64 end = at + align_up(length, kPageSize);
  const int sharing = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
  void* const mapping =
      ::mmap(reinterpret_cast<void*>(at), length, protection, sharing | MAP_NORESERVE | MAP_FIXED, fd, 0);
  if (mapping == MAP_FAILED) {
    ::munmap(reserved, room);
    return MAP_FAILED;
  }
  if (at != start) ::munmap(reserved, at - start);
  if (end != start + room) ::munmap(reinterpret_cast<void*>(end), start + room - end);
  return mapping;
}

void make_large(void* at, u64 length) {
  // What is wholly absent would be left out.
  for (u64 piece = 0; piece < length; piece += kLargePage) (void)static_cast<volatile const u8*>(at)[piece];
  if (length != 0) (void)::madvise(at, length, kCollapse);
}

// The advice does on hosts whose administrator lets shared memory have large pages by advice; elsewhere pages get large
// only where expect_use() says so, which needs no permission.
void GuestMemory::want_large_pages() {
  large_pages_ = true;
  ::madvise(base_, size_, MADV_HUGEPAGE);
}

template <class Make>
void GuestMemory::each_large_page(Gpa at, u64 length, Make make) const {
  if (!large_pages_) return;
  for (const RamRange& range : ranges_) {
    const u64 from = std::max(at.value, range.start.value);
    const u64 to = std::min(at.value + length, range.start.value + range.size);
    if (from >= to) continue;
    const u64 host = reinterpret_cast<u64>(base_) + range.file_offset - range.start.value;
    const u64 first = align_up(host + from, kLargePage), last = align_down(host + to, kLargePage);
    if (first < last) make(reinterpret_cast<void*>(first), last - first);
  }
}

void GuestMemory::expect_use(Gpa at, u64 length) const { each_large_page(at, length, make_large); }

void GuestMemory::expect_use_soon(Gpa at, u64 length) const {
  each_large_page(at, length, [this](void* from, u64 bytes) { large_page_thread_->ask(from, bytes); });
}

}  // namespace bulkhead
