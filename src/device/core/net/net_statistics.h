// What a network device has done, as numbers for a report.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "base/ints.h"

namespace bulkhead::device {

class NetCore;

struct NetStatistics {
  struct Direction {
    std::vector<std::pair<std::string, u64>> counters;
    u64 depth = 0, deepest = 0;
    u64 sum_ns = 0, p50_ns = 0, p99_ns = 0;
  };
  struct Queue {
    Direction out, in;
  };
  bool link_up = true, in_kernel = false;  // in_kernel: by vhost-net, and not counted
  std::string mac;
  u64 mtu = 0;
  std::vector<Queue> queues;
};

NetStatistics statistics_of(const NetCore& core);  // any thread

}  // namespace bulkhead::device
