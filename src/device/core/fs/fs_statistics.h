// What a file system device has done, as numbers for a report.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "base/ints.h"

namespace bulkhead::fs {
struct Counts;
}

namespace bulkhead::device {

class FsCore;

struct FsStatistics {
  struct Request {
    std::string name;                                   // "lookup"
    u64 count = 0, sum_ns = 0, p50_ns = 0, p99_ns = 0;  // from the device's queue until the reply is in it
  };
  std::vector<std::pair<std::string, u64>> counters;  // the device's and the server's
  std::vector<Request> requests;                      // those that there were
  u64 depth = 0, deepest = 0;
};

FsStatistics statistics_of(const FsCore& core, const fs::Counts& server);  // any thread

}  // namespace bulkhead::device
