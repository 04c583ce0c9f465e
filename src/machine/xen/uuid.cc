#include "machine/xen/uuid.h"

#include <fmt/format.h>

#include <random>

namespace bulkhead::machine {

std::array<u8, 16> random_uuid() {
  std::random_device source;
  std::array<u8, 16> uuid;
  for (u8& byte : uuid) byte = static_cast<u8>(source());
  uuid[6] = static_cast<u8>((uuid[6] & 0x0f) | 0x40);
  uuid[8] = static_cast<u8>((uuid[8] & 0x3f) | 0x80);
  return uuid;
}

std::string uuid_text(const std::array<u8, 16>& uuid) {
  std::string text;
  for (std::size_t i = 0; i < uuid.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", uuid[i]);
  }
  return text;
}

}  // namespace bulkhead::machine
