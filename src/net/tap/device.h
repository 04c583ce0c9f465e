// Network devices of this host, in the current namespace: the few things that we do with them.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "base/ints.h"
#include "base/result.h"

namespace bulkhead::net {

bool device_exists(const std::string& name);
Result<u16> device_mtu(const std::string& name);
Result<void> set_device_mtu(const std::string& name, unsigned mtu);
Result<void> set_device_up(const std::string& name);
Result<void> add_to_bridge(const std::string& bridge, const std::string& name);

// IPv4 addresses of the device with their prefix lengths, in host order.
struct Address4 {
  u32 address = 0;
  unsigned prefix = 0;
};
std::vector<Address4> addresses4(const std::string& name);
std::string text_of_address4(u32 address);

// A bridge with this address of its own, up.
Result<void> make_bridge(const std::string& name, const Address4& own);
Result<void> remove_bridge(const std::string& name);

}  // namespace bulkhead::net
