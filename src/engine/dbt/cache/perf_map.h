// Where translated code came from, for tools/profile-zone: a line "START SIZE NAME" for each block, in hexadecimal, as
// in perf's own map files; NAME is "guest-kernel:RIP" or "guest-user:RIP". Space of blocks that were dropped is used
// again: what comes later in the file is what holds. Any thread.
#pragma once
#include <cstdio>
#include <memory>
#include <string>

#include "base/ints.h"
#include "base/result.h"

namespace bulkhead::engine::dbt {

class PerfMap {
 public:
  // Errors: the file cannot be made.
  static Result<std::unique_ptr<PerfMap>> create(const std::string& path);
  PerfMap(const PerfMap&) = delete;
  PerfMap& operator=(const PerfMap&) = delete;
  ~PerfMap();
  // What the file has no room for is not in the map; the zone goes on.
  void add(const u8* code, u64 size, u64 rip, bool user);

 private:
  explicit PerfMap(std::FILE* file) : file_{file} {}
  std::FILE* const file_;  // has a lock of its own
};

}  // namespace bulkhead::engine::dbt
