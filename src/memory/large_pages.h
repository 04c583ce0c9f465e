// How memory is laid out on the host so that the host can back it by large pages, which are quicker to take, to reach
// and to give back: of a boot's pages, one after the other by a fault each, a large one costs a tenth.
#pragma once
#include <sys/mman.h>

#include "base/ints.h"

namespace bulkhead {

inline constexpr u64 kLargePage = 2_MiB;

// mmap of a whole memfd, or of private memory that reads as zero (`fd` -1), at a multiple of a large page; MAP_FAILED
// with errno as mmap has it.
void* map_for_large_pages(int fd, u64 length, int protection = PROT_READ | PROT_WRITE);

// Makes [at, at+length), of a mapping that one may read, resident in large pages where the host has any; whatever lies
// in it stays as it is. It needs no permission of the administrator's. Both are multiples of kLargePage. (Linux 6.1 and
// later; otherwise nothing happens.)
void make_large(void* at, u64 length);

}  // namespace bulkhead
