// Frames as hosts send them, made by hand for tests, and a judge of them that shares no code with src/net/offload.
#pragma once
#include <arpa/inet.h>

#include <cstring>
#include <string>
#include <string_view>

#include "net/frame.h"

namespace bulkhead::net::testing {

struct PacketSpec {
  bool version6 = false, udp = false, vlan = false, extension = false;
  u8 tcp_flags = 0x18;  // PSH ACK
  u32 sequence = 0xfffffff0;
  u8 tcp_options = 12;  // bytes, a multiple of 4
};

inline void put16(std::string& out, unsigned value) {
  out += static_cast<char>(value >> 8);
  out += static_cast<char>(value);
}

// Ethernet frame with everything but the transport's checksum, which has the pseudo header's sum as drivers leave it.
struct Packet {
  std::string bytes;
  std::size_t network = 14, transport = 0, payload = 0;
};

inline u32 sum_of(std::string_view bytes, u32 sum = 0) {
  for (std::size_t i = 0; i < bytes.size(); ++i) sum += static_cast<u8>(bytes[i]) << (i % 2 == 0 ? 8 : 0);
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return sum;
}

inline u32 pseudo_sum(const std::string& frame, std::size_t network, bool version6, bool udp, std::size_t length) {
  const std::string_view addresses = std::string_view{frame}.substr(network + (version6 ? 8 : 12), version6 ? 32 : 8);
  return sum_of(addresses, static_cast<u32>(length) + (udp ? 17 : 6));
}

inline Packet make_packet(std::string_view payload, const PacketSpec& spec = {}) {
  Packet packet;
  std::string& out = packet.bytes;
  out = std::string("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02", 12);
  if (spec.vlan) {
    put16(out, 0x8100);
    put16(out, 5);
    packet.network += 4;
  }
  put16(out, spec.version6 ? 0x86dd : 0x0800);
  const std::size_t header = spec.udp ? 8 : 20u + spec.tcp_options;
  const std::size_t length = header + payload.size();
  const char protocol = spec.udp ? 17 : 6;
  if (spec.version6) {
    out += std::string("\x60\0\0\0", 4);
    put16(out, static_cast<unsigned>(length + (spec.extension ? 8 : 0)));
    out += spec.extension ? '\0' : protocol;
    out += '\x40';
    for (int i = 0; i < 32; ++i) out += static_cast<char>(0x20 + i);
    if (spec.extension) out += protocol + std::string("\0\1\4\0\0\0\0", 7);
  } else {
    out += std::string("\x45\0", 2);
    put16(out, static_cast<unsigned>(20 + length));
    out += std::string("\x12\x34\x40\0\x40", 5) + protocol + std::string("\0\0\x0a\0\2\x0f\x0a\0\2\2", 10);
    const u32 sum = sum_of(std::string_view{out}.substr(packet.network, 20)) ^ 0xffff;
    out[packet.network + 10] = static_cast<char>(sum >> 8);
    out[packet.network + 11] = static_cast<char>(sum);
  }
  packet.transport = out.size();
  const u32 pseudo = pseudo_sum(out, packet.network, spec.version6, spec.udp, length);
  put16(out, 0x1234);
  put16(out, 80);
  if (spec.udp) {
    put16(out, static_cast<unsigned>(length));
    put16(out, pseudo);
  } else {
    put16(out, spec.sequence >> 16);
    put16(out, spec.sequence);
    out +=
        std::string("\1\2\3\4", 4) + static_cast<char>((header / 4) << 4) + static_cast<char>(spec.tcp_flags) + "\7\7";
    put16(out, pseudo);
    out += std::string("\0\0", 2) + std::string(spec.tcp_options, '\1');
  }
  packet.payload = out.size();
  out += payload;
  return packet;
}

// Whether the transport's checksum, and IPv4's, are right.
inline bool sums_are_right(const std::string& frame, std::size_t network, std::size_t transport, bool version6,
                           bool udp) {
  const std::string_view all{frame};
  const u32 own = sum_of(all.substr(transport), pseudo_sum(frame, network, version6, udp, frame.size() - transport));
  return own == 0xffff && (version6 || sum_of(all.substr(network, 20)) == 0xffff);
}

}  // namespace bulkhead::net::testing
