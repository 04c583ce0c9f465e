#include "base/start_code.h"

#include <link.h>
#include <sys/mman.h>

#include "base/bits.h"
#include "base/ints.h"

namespace bulkhead {
namespace {

// A part that the program headers call writable holds relocated addresses, also where it has been made read-only since:
// it would come back without them. A breakpoint that a debugger has put into code is lost, too.
int give_back(dl_phdr_info* object, std::size_t, void*) {
  for (unsigned i = 0; i < object->dlpi_phnum; ++i) {
    const ElfW(Phdr)& part = object->dlpi_phdr[i];
    if (part.p_type != PT_LOAD || (part.p_flags & PF_W) != 0) continue;
    const u64 start = align_down(object->dlpi_addr + part.p_vaddr, kPageSize);
    const u64 end = align_up(object->dlpi_addr + part.p_vaddr + part.p_memsz, kPageSize);
    ::madvise(reinterpret_cast<void*>(start), end - start, MADV_DONTNEED);
  }
  return 0;
}

}  // namespace

void give_back_start_code() { ::dl_iterate_phdr(give_back, nullptr); }

}  // namespace bulkhead
