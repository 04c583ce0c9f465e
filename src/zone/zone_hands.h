// What others may ask of the loop that runs a zone. On the loop's thread.
#pragma once
#include "base/clock.h"
#include "base/result.h"

namespace bulkhead::zone {

class ZoneHands {
 public:
  virtual ~ZoneHands() = default;
  // Asks what runs in the zone to end; what has not ended when `patience` is over is stopped. Errors: it cannot be
  // asked.
  virtual Result<void> ask_to_end(Nanoseconds patience) = 0;
  virtual void kill() = 0;  // stops it at once
  virtual Result<void> may_reboot() const = 0;
};

}  // namespace bulkhead::zone
