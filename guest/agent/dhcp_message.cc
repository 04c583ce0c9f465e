#include <arpa/inet.h>

#include "guest/agent/dhcp.h"

namespace bulkhead::agent {
namespace {

constexpr std::size_t kOptionsAt = 240;
constexpr unsigned char kCookie[4] = {99, 130, 83, 99};

std::uint32_t word_at(const unsigned char* at) {
  std::uint32_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

void take_option(unsigned char code, const unsigned char* at, unsigned size, DhcpLease& lease, int& type) {
  switch (code) {
    case 1:  // subnet mask
      if (size == 4) lease.prefix = static_cast<unsigned>(__builtin_popcount(word_at(at)));
      return;
    case 3:
      if (size >= 4) lease.router = word_at(at);
      return;
    case 6:
      for (unsigned i = 0; i + 4 <= size && lease.server_count < 3; i += 4)
        lease.servers[lease.server_count++] = word_at(at + i);
      return;
    case 26:
      if (size == 2) lease.mtu = static_cast<std::uint32_t>(at[0] << 8 | at[1]);
      return;
    case 51:
      if (size == 4 && word_at(at) != ~0u) lease.seconds = ntohl(word_at(at));
      return;
    case 53:
      if (size == 1) type = at[0];
      return;
    case 54:
      if (size == 4) lease.server = word_at(at);
      return;
    default:
      return;
  }
}

}  // namespace

int parse_dhcp(const unsigned char* message, std::size_t size, std::uint32_t transaction, DhcpLease& lease) {
  lease = {};
  int type = 0;
  if (size < kOptionsAt || message[0] != 2 || word_at(message + 4) != transaction ||
      memcmp(message + kOptionsAt - 4, kCookie, 4) != 0)
    return 0;
  lease.address = word_at(message + 16);
  for (std::size_t at = kOptionsAt; at < size && message[at] != 255;) {
    if (message[at] == 0) {
      ++at;
      continue;
    }
    if (at + 2 > size || at + 2 + message[at + 1] > size) return 0;
    take_option(message[at], message + at + 2, message[at + 1], lease, type);
    at += 2u + message[at + 1];
  }
  return lease.address != 0 ? type : 0;
}

}  // namespace bulkhead::agent
