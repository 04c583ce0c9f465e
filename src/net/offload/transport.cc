#include "net/offload/transport.h"

#include "base/big_endian.h"

namespace bulkhead::net {
namespace {

constexpr u16 kEtherVlan = 0x8100, kEtherIp4 = 0x0800, kEtherIp6 = 0x86dd;
constexpr u8 kHopByHop = 0, kRouting = 43, kDestination = 60;  // headers before the transport's [rfc8200 §4]
constexpr u16 kFragment = 0x3fff;                              // of IPv4: more to come, or not the first

u8 byte_at(std::span<const std::byte> bytes, std::size_t at) { return std::to_integer<u8>(bytes[at]); }

bool find4(std::span<const std::byte> frame, Transport& found) {
  const u8 first = byte_at(frame, found.network);
  found.transport = found.network + 4 * (first & 15);
  found.protocol = byte_at(frame, found.network + 9);
  return first >> 4 == 4 && (first & 15) >= 5 && (load_be<u16>(&frame[found.network + 6]) & kFragment) == 0;
}

bool find6(std::span<const std::byte> frame, Transport& found) {
  if (frame.size() < found.network + 40 || byte_at(frame, found.network) >> 4 != 6) return false;
  u8 next = byte_at(frame, found.network + 6);
  found.transport = found.network + 40;
  while (next == kHopByHop || next == kRouting || next == kDestination) {
    if (found.transport + 8 > frame.size()) return false;
    next = byte_at(frame, found.transport);
    found.transport += 8 * (1u + byte_at(frame, found.transport + 1));
  }
  found.protocol = next;
  return true;
}

}  // namespace

std::optional<Transport> find_transport(std::span<const std::byte> frame) {
  Transport found{.network = kEthernetBytes};
  if (frame.size() < kEthernetBytes + kVlanBytes + 20) return std::nullopt;
  u16 type = load_be<u16>(&frame[12]);
  if (type == kEtherVlan) {
    found.network += kVlanBytes;
    type = load_be<u16>(&frame[16]);
  }
  found.version4 = type == kEtherIp4;
  if (type != kEtherIp4 && type != kEtherIp6) return std::nullopt;
  if (!(found.version4 ? find4(frame, found) : find6(frame, found))) return std::nullopt;
  return found;
}

}  // namespace bulkhead::net
