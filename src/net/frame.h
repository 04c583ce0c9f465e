// What travels between a zone and the world: Ethernet frames, each with a header that says what is still to be done to
// it. The header is virtio's, Linux's tun has the same [virtio-1.3 §5.1.6], and everything else is translated to it.
#pragma once
#include <array>
#include <span>
#include <string>

#include "base/ints.h"
#include "block/buffers.h"

namespace bulkhead::net {

using block::IoBuffer;  // a run of host memory

inline constexpr u8 kNeedsChecksum = 1;  // flags: from checksum_start on, to be put at checksum_offset behind it
inline constexpr u8 kDataValid = 2;      // flags: checksums have been verified, or nobody could have spoilt them
// gso: the frame stands for several. USO is "UDP_L4".
inline constexpr u8 kGsoNone = 0, kGsoTcp4 = 1, kGsoTcp6 = 4, kGsoUdp = 5, kGsoEcn = 0x80;

struct FrameHeader {
  u8 flags = 0, gso = kGsoNone;
  u16 header_bytes = 0;  // a hint, and not believed
  u16 segment_bytes = 0;
  u16 checksum_start = 0, checksum_offset = 0;
};
static_assert(sizeof(FrameHeader) == 10);

inline constexpr u32 kEthernetBytes = 14, kVlanBytes = 4;
inline constexpr u32 kMinMtu = 68, kMaxMtu = 65521;
// The largest IP packet in a frame with a VLAN tag.
inline constexpr u32 kMaxFrame = 65535 + kEthernetBytes + kVlanBytes;

// What somebody can take in frames that are sent to it. A set.
using Offloads = u8;
inline constexpr Offloads kChecksum = 1, kTso4 = 2, kTso6 = 4, kTsoEcn = 8, kUso = 16;
inline constexpr Offloads kAllOffloads = 31;

// The offload that a frame needs its taker to have, kChecksum apart; 0 for plain ones, kAllOffloads for no such thing.
constexpr Offloads offload_of(u8 gso) {
  const Offloads ecn = gso & kGsoEcn ? kTsoEcn : 0;
  switch (gso & ~kGsoEcn) {
    case kGsoNone:
      return ecn != 0 ? kAllOffloads : 0;
    case kGsoTcp4:
      return kTso4 | ecn;
    case kGsoTcp6:
      return kTso6 | ecn;
    case kGsoUdp:
      return ecn != 0 ? kAllOffloads : kUso;
    default:
      return kAllOffloads;
  }
}

// Whether the header can be true of a frame of `bytes`: it points into the frame and asks for no nonsense.
constexpr bool plausible(const FrameHeader& header, u64 bytes) {
  const bool sum = header.flags & kNeedsChecksum;
  const Offloads gso = offload_of(header.gso);
  return bytes >= kEthernetBytes && bytes <= kMaxFrame && gso != kAllOffloads &&
         (gso == 0 || (sum && header.segment_bytes != 0)) &&
         (!sum || u64{header.checksum_start} + header.checksum_offset + 2 <= bytes);
}

inline bool has_vlan_tag(std::span<const std::byte> frame) {
  return frame.size() >= kEthernetBytes && frame[12] == std::byte{0x81} && frame[13] == std::byte{0};
}

using MacAddress = std::array<u8, 6>;
std::string text_of(const MacAddress& mac);  // "02:12:34:56:78:9a"
constexpr bool is_multicast(const MacAddress& mac) { return mac[0] & 1; }

}  // namespace bulkhead::net
