// How guest memory is laid out on the host so that the host can back it by large pages.
#pragma once
#include "base/ints.h"

namespace bulkhead {

inline constexpr u64 kLargePage = 2_MiB;

// mmap of a whole memfd for reading and writing, at a multiple of a large page; MAP_FAILED with errno as mmap has it.
void* map_for_large_pages(int fd, u64 length);

}  // namespace bulkhead
