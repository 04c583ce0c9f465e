// What a Xen disk counts besides its core.
#pragma once
#include "base/ints.h"
#include "telemetry/counter.h"

namespace bulkhead::device::xenbus {

enum class BlkCounter : u8 {
  kRequests,           // answered, well or not
  kBadRequests,        // fields that make no sense
  kBadGrants,          // pages that the guest has not granted
  kUnknownOperations,  // and those not offered
  kOverruns,           // rings stopped because their producer ran away
  kNotifications,      // events to the guest
  kPersistentHits,     // pages found mapped
};

class BlkCounters {
 public:
  telemetry::Counter& operator[](BlkCounter which) { return set_[static_cast<std::size_t>(which)]; }
  u64 value(BlkCounter which) const { return set_[static_cast<std::size_t>(which)].value(); }
  const telemetry::CounterSet& set() const { return set_; }

 private:
  telemetry::CounterSet set_{{"requests", "bad_requests", "bad_grants", "unknown_operations", "ring_overruns",
                              "notifications", "persistent_hits"}};
};

}  // namespace bulkhead::device::xenbus
