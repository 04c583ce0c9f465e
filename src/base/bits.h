// Bit arithmetic that every layer needs: alignment, fields, sign extension.
#pragma once
#include "base/ints.h"

namespace bulkhead {

constexpr u64 align_down(u64 value, u64 power_of_two) { return value & ~(power_of_two - 1); }
constexpr u64 align_up(u64 value, u64 power_of_two) { return align_down(value + power_of_two - 1, power_of_two); }
constexpr bool is_aligned(u64 value, u64 power_of_two) { return (value & (power_of_two - 1)) == 0; }

constexpr bool bit(u64 value, unsigned index) { return (value >> index) & 1; }
// Bits high..low, both included, 63 >= high >= low.
constexpr u64 bits(u64 value, unsigned high, unsigned low) { return (value >> low) & (~u64{0} >> (63 - (high - low))); }
// The low 8*size bits set; size 1..8 bytes.
constexpr u64 mask_for_size(unsigned size) { return ~u64{0} >> (64 - 8 * size); }
constexpr u64 sign_extend(u64 value, unsigned size) {
  const unsigned shift = 64 - 8 * size;
  return static_cast<u64>(static_cast<i64>(value << shift) >> shift);
}
// True if [start, start+length) does not wrap and lies within [0, limit).
constexpr bool range_within(u64 start, u64 length, u64 limit) { return length <= limit && start <= limit - length; }

}  // namespace bulkhead
