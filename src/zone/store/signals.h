// The signals that end us, as something to poll. They are blocked for every thread, so nobody is interrupted midway
// and whoever waits for something long watches fd() too.
#pragma once
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace bulkhead::zone {

class EndSignals {
 public:
  // Blocks SIGINT, SIGTERM, SIGHUP and SIGWINCH and ignores SIGPIPE: call before the first thread starts.
  static Result<EndSignals> take();
  int fd() const { return fd_.get(); }
  // The next signal that has arrived, or 0.
  int next();
  // The first SIGINT, SIGTERM or SIGHUP that next() has returned, or 0: why we are ending.
  int first() const { return first_; }
  static void restore_in_child();  // after fork: unblocks all; async-signal-safe

 private:
  UniqueFd fd_;
  int first_ = 0;
};

}  // namespace bulkhead::zone
