// Segment descriptors, gates and selectors as they lie in memory [SDM-3A §3.4.5, §5.8.3, §6.11, §7.2].
#pragma once
#include "base/bits.h"
#include "engine/dbt/cpu/cpu_state.h"

namespace bulkhead::engine::dbt {

inline constexpr u16 kUnusable = 1u << 12;

constexpr unsigned rpl_of(u16 selector) { return selector & 3; }
constexpr bool is_null(u16 selector) { return (selector & ~3u) == 0; }
constexpr u32 error_of(u16 selector) { return selector & 0xfffcu; }

// Types of system descriptors.
inline constexpr unsigned kTss16 = 1, kLdtType = 2, kTss16Busy = 3, kCallGate16 = 4, kTaskGate = 5,
                          kInterruptGate16 = 6, kTrapGate16 = 7, kTss32 = 9, kTss32Busy = 11, kCallGate32 = 12,
                          kInterruptGate32 = 14, kTrapGate32 = 15;

struct Descriptor {
  u64 low = 0;
  u64 high = 0;     // second half of a 16-byte one, else 0
  u64 address = 0;  // linear address it was read from

  unsigned type() const { return static_cast<unsigned>(bits(low, 43, 40)); }
  bool is_system() const { return !bit(low, 44); }
  unsigned dpl() const { return static_cast<unsigned>(bits(low, 46, 45)); }
  bool present() const { return bit(low, 47); }
  bool long_mode() const { return bit(low, 53); }
  bool big() const { return bit(low, 54); }
  bool is_code() const { return !is_system() && (type() & 8); }
  bool is_conforming() const { return is_code() && (type() & 4); }
  bool is_readable() const { return !is_system() && (!(type() & 8) || (type() & 2)); }
  bool is_writable_data() const { return !is_system() && (type() & 0xa) == 2; }
  bool accessed() const { return type() & 1; }
  u64 base() const { return bits(low, 39, 16) | bits(low, 63, 56) << 24 | high << 32; }
  u32 limit() const {
    const u32 raw = static_cast<u32>(bits(low, 15, 0) | bits(low, 51, 48) << 16);
    return bit(low, 55) ? raw << 12 | 0xfff : raw;
  }
  // As a gate.
  u16 gate_selector() const { return static_cast<u16>(bits(low, 31, 16)); }
  u64 gate_offset() const { return bits(low, 15, 0) | bits(low, 63, 48) << 16 | high << 32; }

  Segment segment(u16 selector) const {
    Segment s;
    s.selector = selector;
    s.attributes = static_cast<u16>(bits(low, 47, 40) | bits(low, 55, 52) << 8);
    s.limit = limit();
    s.base = base();
    return s;
  }
};

}  // namespace bulkhead::engine::dbt
