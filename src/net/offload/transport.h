// Where a frame's headers are.
#pragma once
#include <optional>

#include "net/frame.h"

namespace bulkhead::net {

inline constexpr u8 kTcp = 6, kUdp = 17;  // IP protocols

struct Transport {
  std::size_t network = 0, transport = 0;  // where the IP header and the one behind it begin
  bool version4 = true;
  u8 protocol = 0;
  u16 checksum_offset() const { return protocol == kTcp ? 16 : 6; }  // of TCP or UDP
};

// Of an IPv4 or IPv6 frame, with or without a VLAN tag, that is no fragment. `frame`: its first bytes, as many as hold
// the headers.
std::optional<Transport> find_transport(std::span<const std::byte> frame);

}  // namespace bulkhead::net
