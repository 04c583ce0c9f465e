// What a disk device has done, as numbers for a report.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "base/ints.h"

namespace bulkhead::device {

class BlockCore;

struct BlockStatistics {
  struct Queue {
    u64 requests = 0, depth = 0, deepest = 0;  // ended; in flight now; the most in flight at once
    u64 sum_ns = 0, p50_ns = 0, p99_ns = 0;    // from ring to ring
  };
  std::vector<std::pair<std::string, u64>> counters;
  std::vector<Queue> queues;  // up to the last one that was used
};

BlockStatistics statistics_of(const BlockCore& core);  // any thread

}  // namespace bulkhead::device
