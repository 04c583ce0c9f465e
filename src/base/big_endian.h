// Big-endian integers in bytes of any alignment, as image formats and network protocols keep them.
#pragma once
#include <bit>
#include <cstring>
#include <span>

#include "base/ints.h"

namespace bulkhead {

constexpr u8 swap_bytes(u8 value) { return value; }
constexpr u16 swap_bytes(u16 value) { return __builtin_bswap16(value); }
constexpr u32 swap_bytes(u32 value) { return __builtin_bswap32(value); }
constexpr u64 swap_bytes(u64 value) { return __builtin_bswap64(value); }
static_assert(std::endian::native == std::endian::little);

template <class T>
T load_be(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return swap_bytes(value);
}
template <class T>
void store_be(std::byte* at, T value) {
  value = swap_bytes(value);
  std::memcpy(at, &value, sizeof value);
}

}  // namespace bulkhead
