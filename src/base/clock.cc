#include "base/clock.h"

#include <time.h>

namespace bulkhead {
namespace {
u64 read_clock(clockid_t id) {
  timespec t{};
  ::clock_gettime(id, &t);
  return static_cast<u64>(t.tv_sec) * 1'000'000'000u + static_cast<u64>(t.tv_nsec);
}
}  // namespace

Nanoseconds HostClock::now() const { return read_clock(CLOCK_MONOTONIC); }
u64 HostClock::unix_time_ns() const { return read_clock(CLOCK_REALTIME); }

}  // namespace bulkhead
