// Short names for fixed-width integers, and the address types that must never be mixed.
#pragma once
#include <compare>
#include <cstddef>
#include <cstdint>

namespace bulkhead {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i8 = std::int8_t;
using i16 = std::int16_t;
using i32 = std::int32_t;
using i64 = std::int64_t;
__extension__ using u128 = unsigned __int128;
__extension__ using i128 = __int128;

// One address space, one type. `value` is in bytes.
template <class Tag>
struct Address {
  u64 value = 0;
  constexpr auto operator<=>(const Address&) const = default;
  constexpr Address operator+(u64 bytes) const { return {value + bytes}; }
  constexpr Address operator-(u64 bytes) const { return {value - bytes}; }
  constexpr u64 operator-(Address other) const { return value - other.value; }
};
using Gpa = Address<struct GuestPhysicalTag>;  // guest-physical
using Gva = Address<struct GuestVirtualTag>;   // guest-linear (after segmentation, before paging)

// Global system interrupt: an input of the interrupt router [acpi-6.5 "Global System Interrupts"].
struct Gsi {
  u32 value = 0;
  constexpr auto operator<=>(const Gsi&) const = default;
};

inline constexpr u64 kPageSize = 4096;
inline constexpr u64 kPageShift = 12;

constexpr u64 operator""_KiB(unsigned long long n) { return n << 10; }
constexpr u64 operator""_MiB(unsigned long long n) { return n << 20; }
constexpr u64 operator""_GiB(unsigned long long n) { return n << 30; }

}  // namespace bulkhead
