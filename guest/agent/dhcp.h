// A DHCP client [rfc2131]. A lease that ends is renewed by a process of its own. Every length in an answer is bounded;
// an answer that is not ours or not whole is passed over.
#pragma once
#include <cstdint>
#include <cstring>

#include "guest/agent/agent.h"

namespace bulkhead::agent {

struct DhcpLease {  // addresses in network order
  std::uint32_t address = 0, server = 0, router = 0;
  std::uint32_t servers[3] = {};
  unsigned server_count = 0, prefix = 24;
  std::uint32_t mtu = 0;      // 0: not said
  std::uint32_t seconds = 0;  // how long it is ours; 0: for ever
};

// Asks on the device, at most 10 s.
bool ask_dhcp(int device, const char* mac, DhcpLease& lease, Failure& failure);

// Asks whether the lease goes on, a few seconds at most. False: nobody answered, or (with `lost`) it is not ours any
// more.
bool renew_dhcp(int device, const char* mac, DhcpLease& lease, bool& lost);

// The message type (offer 2, ack 5, nak 6) of a BOOTP reply to `transaction`, with what it says; 0: it is none.
int parse_dhcp(const unsigned char* message, std::size_t size, std::uint32_t transaction, DhcpLease& lease);

}  // namespace bulkhead::agent
