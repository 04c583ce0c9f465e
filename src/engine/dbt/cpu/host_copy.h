// Loads, stores and copies between guest RAM and our own variables, in general registers and without library calls.
// Each aligned piece of up to 8 bytes is one host access, as the guest is owed.
#pragma once
#include <cstddef>

#include "base/ints.h"

namespace bulkhead::engine::dbt {

template <class T>
inline u64 host_load_as(const void* at) {
  struct [[gnu::packed, gnu::may_alias]] Unaligned {
    T value;
  };
  return static_cast<const volatile Unaligned*>(at)->value;
}
template <class T>
inline void host_store_as(void* at, u64 value) {
  struct [[gnu::packed, gnu::may_alias]] Unaligned {
    T value;
  };
  static_cast<volatile Unaligned*>(at)->value = static_cast<T>(value);
}

inline u64 host_load(const void* at, unsigned size) {
  switch (size) {
    case 1:
      return host_load_as<u8>(at);
    case 2:
      return host_load_as<u16>(at);
    case 4:
      return host_load_as<u32>(at);
    default:
      return host_load_as<u64>(at);
  }
}
inline void host_store(void* at, unsigned size, u64 value) {
  switch (size) {
    case 1:
      return host_store_as<u8>(at, value);
    case 2:
      return host_store_as<u16>(at, value);
    case 4:
      return host_store_as<u32>(at, value);
    default:
      return host_store_as<u64>(at, value);
  }
}

inline void host_copy(void* to, const void* from, std::size_t length) {
  auto* out = static_cast<std::byte*>(to);
  auto* in = static_cast<const std::byte*>(from);
  for (; length >= 8; length -= 8, in += 8, out += 8) host_store_as<u64>(out, host_load_as<u64>(in));
  for (; length > 0; --length, ++in, ++out) host_store_as<u8>(out, host_load_as<u8>(in));
}

}  // namespace bulkhead::engine::dbt
