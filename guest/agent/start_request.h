// What the agent is asked to run, as bytes: the monitor writes it (src/zone/session/start_request.cc), the agent reads
// it in place. Layout, little endian:
//   u32 flags   u16 columns   u16 rows   u32 argument count   u32 environment count   u32 network count
//   u32 volume count
//   then strings, each u32 length (without the NUL), bytes, NUL: hostname, working directory, user, arguments,
//   environment, networks, volumes (volumes.h)
// The user is numbers with a space between: uid, gid and up to 64 more groups; empty: root, with the groups it has.
// A network is words with a space between: mac=02:... mtu=1500 dhcp=1 ip=192.0.2.7/24 gw=192.0.2.1 dns=192.0.2.1
// route=10.0.0.0/8@192.0.2.1 (without @: on the link); mac
// comes first, says which device it is and must be there, the others may be there several times or not at all.
#pragma once
#include <cstdint>
#include <cstring>
#include <span>

#include "guest/agent/protocol.h"

namespace bulkhead::agent {

inline constexpr std::uint32_t kFlagTerminal = 1;  // a pseudo terminal instead of three pipes
inline constexpr std::uint32_t kMaxArguments = 16 * 1024;
inline constexpr std::uint32_t kMaxEnvironment = 4 * 1024;
inline constexpr std::uint32_t kMaxNetworks = 8;
inline constexpr std::uint32_t kMaxVolumes = 64;
inline constexpr std::uint32_t kMaxGroups = 64;
inline constexpr std::uint32_t kMaxHostname = 64;  // the kernel's limit

struct StartHeader {
  std::uint32_t flags;
  std::uint16_t columns, rows;
  std::uint32_t arguments, environment, networks, volumes;
};

// Reads the request in `bytes`, which must outlive the strings it hands out. Every next_string() may fail.
class StartReader {
 public:
  explicit StartReader(std::span<char> bytes) : rest_{bytes} {}

  // False when the header is short or a count is out of bounds.
  bool header(StartHeader& out) {
    if (rest_.size() < sizeof out) return false;
    std::memcpy(&out, rest_.data(), sizeof out);
    rest_ = rest_.subspan(sizeof out);
    return (out.flags & ~kFlagTerminal) == 0 && out.arguments >= 1 && out.arguments <= kMaxArguments &&
           out.environment <= kMaxEnvironment && out.networks <= kMaxNetworks && out.volumes <= kMaxVolumes;
  }
  // The next string, NUL-terminated and without a NUL inside; nullptr when there is none.
  char* next_string() {
    std::uint32_t length;
    if (rest_.size() < sizeof length) return nullptr;
    std::memcpy(&length, rest_.data(), sizeof length);
    if (rest_.size() - sizeof length <= length) return nullptr;
    char* const text = rest_.data() + sizeof length;
    if (text[length] != 0 || std::memchr(text, 0, length) != nullptr) return nullptr;
    rest_ = rest_.subspan(sizeof length + length + 1);
    return text;
  }
  bool at_end() const { return rest_.empty(); }

 private:
  std::span<char> rest_;
};

}  // namespace bulkhead::agent
