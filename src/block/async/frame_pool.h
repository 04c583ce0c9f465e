// Where coroutine frames live: free lists by size, one set a thread, so that a request allocates nothing once warm.
// A frame may be freed on another thread than its own; it then stays there. Under a sanitizer: plain new and delete.
#pragma once
#include <cstddef>

namespace bulkhead::block {

void* frame_pool_allocate(std::size_t size);
void frame_pool_free(void* at, std::size_t size);

}  // namespace bulkhead::block
