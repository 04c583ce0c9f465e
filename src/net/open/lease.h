// Addresses on a bridge that `bulkhead net` made: each zone takes a free one, for as long as it lives.
#pragma once
#include "net/open/net_config.h"
#include "net/tap/device.h"

namespace bulkhead::net {

// Where the addresses of a bridge are noted: a folder, there if `bulkhead net` made the bridge.
std::string lease_folder(const std::string& bridge);

// Fills in address, gateway and name servers of the zone from the bridge's own addresses; without a folder it asks by
// DHCP instead. Errors: no address is free.
Result<void> take_address(Network& network, const std::vector<Address4>& bridge);

// The name servers that this host asks and that others can reach.
std::vector<std::string> host_name_servers(const std::string& resolv_conf);

}  // namespace bulkhead::net
