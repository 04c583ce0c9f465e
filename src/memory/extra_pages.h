// Where a GuestMemory's extra pages are placed.
#pragma once
#include <atomic>
#include <vector>

#include "base/sync.h"
#include "memory/guest_memory.h"

namespace bulkhead {

struct GuestMemory::Extra {
  explicit Extra(u64 count) : places(count) {
    for (auto& place : places) place.store(kNowhere, std::memory_order_relaxed);
  }
  static constexpr u64 kNowhere = ~u64{0};

  Mutex mutex;                              // for changes
  std::vector<std::atomic<u64>> places;     // guest-physical address of each
  std::atomic<u64> low{kNowhere}, high{0};  // all of them lie between; never narrowed
};

}  // namespace bulkhead
