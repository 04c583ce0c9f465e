#include "memory/large_pages.h"

#include <sys/mman.h>

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

void* map_for_large_pages(int fd, u64 length) {
  const u64 room = align_up(length, kPageSize) + kLargePage;
  void* const reserved = ::mmap(nullptr, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return MAP_FAILED;
  const u64 start = reinterpret_cast<u64>(reserved), at = align_up(start, kLargePage);
  const u64 end = at + align_up(length, kPageSize);
  void* const mapping = ::mmap(reinterpret_cast<void*>(at), length, PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, 0);
  if (mapping == MAP_FAILED) {
    ::munmap(reserved, room);
    return MAP_FAILED;
  }
  if (at != start) ::munmap(reserved, at - start);
  if (end != start + room) ::munmap(reinterpret_cast<void*>(end), start + room - end);
  return mapping;
}

// The advice does on hosts whose administrator lets shared memory have large pages by advice; elsewhere pages get large
// only where expect_use() says so, which needs no permission.
void GuestMemory::want_large_pages() {
  large_pages_ = true;
  ::madvise(base_, size_, MADV_HUGEPAGE);
}

void GuestMemory::expect_use(Gpa at, u64 length) const {
  if (!large_pages_) return;
  for (const RamRange& range : ranges_) {
    const u64 from = std::max(at.value, range.start.value);
    const u64 to = std::min(at.value + length, range.start.value + range.size);
    if (from >= to) continue;
    const u64 host = reinterpret_cast<u64>(base_) + range.file_offset - range.start.value;
    const u64 first = align_up(host + from, kLargePage), last = align_down(host + to, kLargePage);
    // What is wholly absent would be left out.
    for (u64 piece = first; piece < last; piece += kLargePage) (void)*reinterpret_cast<volatile const u8*>(piece);
    if (first < last) (void)::madvise(reinterpret_cast<void*>(first), last - first, kCollapse);
  }
}

}  // namespace bulkhead
