// A tap that stands in for a device of its namespace: whatever arrives at one leaves by the other, both ways, so the
// zone behind the tap is at the device's place. This is how a pod's zone gets the interface that a network plugin has
// made. The kernel does it (an ingress filter with a redirection on each [linux "tc-mirred"]); all of it goes with the
// tap or with the namespace.
#pragma once
#include <string>
#include <vector>

#include "base/result.h"
#include "net/frame.h"

namespace bulkhead::net {

// What whoever stands in for the device must have of it.
struct DeviceFacts {
  MacAddress mac{};
  u16 mtu = 0;
  std::vector<std::string> addresses;  // "10.1.0.7/24", those of its link alone left out
  std::vector<std::string> gateways;
  std::vector<std::string> routes;  // "10.2.0.0/16" on its link, "10.2.0.0/16@10.1.0.1"
};

// All in the current namespace. Errors: no such device; no permission.
Result<DeviceFacts> device_facts(const std::string& name);
Result<void> join_devices(const std::string& one, const std::string& other);

}  // namespace bulkhead::net
