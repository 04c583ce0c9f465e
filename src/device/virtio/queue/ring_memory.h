// Loads and stores of ring fields that the guest shares with us: each exactly once, ordered as named. A plain load
// could be repeated by the compiler, and then what we judged would not be what we use.
#pragma once
#include <atomic>

#include "base/ints.h"

namespace bulkhead::device::virtio {

// Little-endian as we are: bulkhead runs on x86-64 only.
template <class T>
T load(std::byte* at, std::memory_order order = std::memory_order_relaxed) {
  return std::atomic_ref<T>{*reinterpret_cast<T*>(at)}.load(order);
}
template <class T>
void store(std::byte* at, T value, std::memory_order order = std::memory_order_relaxed) {
  std::atomic_ref<T>{*reinterpret_cast<T*>(at)}.store(value, order);
}

struct Descriptor {
  u64 address;
  u32 length;
  u16 flags;
  u16 next;  // packed: flags and this one change places
};

inline Descriptor load_split_descriptor(std::byte* at) {
  const u64 address = load<u64>(at);
  const u64 rest = load<u64>(at + 8);
  return {address, static_cast<u32>(rest), static_cast<u16>(rest >> 32), static_cast<u16>(rest >> 48)};
}

struct PackedDescriptor {
  u64 address;
  u32 length;
  u16 id, flags;
};

inline PackedDescriptor load_packed_descriptor(std::byte* at) {
  const u64 address = load<u64>(at);
  const u64 rest = load<u64>(at + 8);
  return {address, static_cast<u32>(rest), static_cast<u16>(rest >> 32), static_cast<u16>(rest >> 48)};
}

}  // namespace bulkhead::device::virtio
