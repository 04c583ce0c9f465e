#include "memory/pages.h"

#include "memory/large_pages.h"

namespace bulkhead {

Result<Pages> Pages::allocate(u64 size) {
  if (size == 0) return Pages{{}};
  void* const at = map_for_large_pages(-1, size);
  if (at == MAP_FAILED) return fail_errno("cannot allocate {} bytes", size);
  ::madvise(at, size, MADV_HUGEPAGE);
  return Pages{{static_cast<std::byte*>(at), size}};
}

Pages::~Pages() {
  if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
}

}  // namespace bulkhead
