// SHA-256 [fips-180-4], for naming cache entries by their content.
#pragma once
#include <array>
#include <span>
#include <string>
#include <string_view>

#include "base/ints.h"

namespace bulkhead::zone {

class Sha256 {
 public:
  void add(std::span<const std::byte> bytes);
  void add(std::string_view text) { add(std::as_bytes(std::span{text})); }
  void add_number(u64 value) { add(std::as_bytes(std::span{&value, 1})); }
  // A text with its length in front, so that two texts in a row cannot be taken for two others.
  void add_text(std::string_view text) {
    add_number(text.size());
    add(text);
  }
  std::string hex();  // 64 digits; ends the computation

 private:
  void compress(const std::byte* block);
  std::array<u32, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                            0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, 64> block_{};
  std::size_t used_ = 0;
  u64 length_ = 0;
};

}  // namespace bulkhead::zone
