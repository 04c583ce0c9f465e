// The LUKS header of version 1 [luks1]: which cipher, and the volume key behind passphrases.
#pragma once
#include <array>
#include <span>
#include <string>
#include <vector>

#include "block/crypto/sector_cipher.h"

namespace bulkhead::block {

struct Luks1Slot {
  bool active = false;
  u32 iterations = 0, material_sector = 0, stripes = 0;
  std::array<std::byte, 32> salt{};
};

struct Luks1Header {
  static constexpr u64 kBytes = 592;
  static constexpr u64 kMostBytes = 64_MiB;  // of a whole header with its key material
  std::string cipher = "aes", mode = "xts-plain64", hash = "sha256", uuid;
  u32 payload_sector = 0, key_bytes = 64;
  std::array<std::byte, 20> digest{};
  std::array<std::byte, 32> digest_salt{};
  u32 digest_iterations = 0;
  std::array<Luks1Slot, 8> slots{};
};

// `bytes`: kBytes or more. Hostile. Errors: what is wrong with it. What passes costs bounded time and memory.
Result<Luks1Header> parse_luks1(std::span<const std::byte> bytes);

// `area`: header and key material. Errors: no active slot has that passphrase; a cipher or hash that we do not have.
// Takes as long as its makers wanted (seconds).
Result<std::unique_ptr<SectorCipher>> unlock_luks1(const Luks1Header& header, std::span<const std::byte> area,
                                                   std::string_view passphrase);

// A new area, with a new key behind the passphrase in slot 0: AES-256-XTS, SHA-256. `milliseconds`: how long unlocking
// is to take on this host.
Result<std::vector<std::byte>> make_luks1(std::string_view passphrase, unsigned milliseconds);

}  // namespace bulkhead::block
