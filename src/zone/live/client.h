// Asking a running zone, from another process.
#pragma once
#include <string>

#include "base/clock.h"
#include "base/fd.h"
#include "base/result.h"
#include "zone/live/request.h"

namespace bulkhead::zone {

class ZoneClient {
 public:
  static constexpr std::size_t kLongestAnswer = 4_MiB;
  // Errors: no zone of that name runs.
  static Result<ZoneClient> connect(const std::string& folder, const std::string& name);
  // The answer's JSON value. Errors: the zone's own, or it said nothing for so long, or it ended meanwhile.
  Result<std::string> ask(const Request& request, Nanoseconds patience);

 private:
  ZoneClient(UniqueFd fd, std::string name) : fd_{std::move(fd)}, name_{std::move(name)} {}
  Result<std::string> read_line(Nanoseconds deadline);
  UniqueFd fd_;
  std::string name_;
};

}  // namespace bulkhead::zone
