// What a toolstack asks of a Xen guest's kernel through xenstore: the nodes below control/ of the zone's directory.
// The guest says by control/feature-* what it follows, and takes a request by clearing control/shutdown.
// Source: Xen's docs/misc/xenstore-paths, "~/control/shutdown". Missing: sysrq.
#pragma once
#include <string>

#include "device/xenbus/ports.h"
#include "machine/machine.h"
#include "telemetry/counter.h"

namespace bulkhead::machine {

// Any thread. `store` outlives us.
class XenControl {
 public:
  XenControl(device::xenbus::StorePort& store, u16 domain);
  Asked request(ShutdownRequest what);
  const telemetry::CounterSet& counters() const { return counters_; }

 private:
  enum Counter : std::size_t { kRequests, kUnheardRequests };
  device::xenbus::StorePort& store_;
  const std::string directory_;
  telemetry::CounterSet counters_{{"shutdown_requests", "shutdown_requests_unheard"}};
};

}  // namespace bulkhead::machine
