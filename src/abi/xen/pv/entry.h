// Page-table entries of a 64-bit PV guest: as the hardware has them [SDM-3A §4.5], in frames of the guest's.
#pragma once
#include "base/ints.h"

namespace bulkhead::abi::xen::pv {

inline constexpr u64 kPresent = 1, kWritable = 2, kUser = 4, kWriteThrough = 8, kCacheDisable = 0x10, kAccessed = 0x20,
                     kDirty = 0x40, kLarge = 0x80, kGlobal = 0x100, kNoExecute = u64{1} << 63;
inline constexpr u64 kAddressMask = 0x000ffffffffff000;
inline constexpr unsigned kEntries = 512;

constexpr u64 frame_of_entry(u64 entry) { return (entry & kAddressMask) >> 12; }
constexpr u64 make_entry(u64 frame, u64 flags) { return frame << 12 | flags; }
constexpr unsigned index_at(unsigned level, u64 linear) {
  return static_cast<unsigned>(linear >> (12 + 9 * (level - 1))) & (kEntries - 1);
}
// Of a top-level table: the slots that are the hypervisor's.
inline constexpr unsigned kFirstXenSlot = 256, kXenSlots = 16;
constexpr bool is_xen_slot(unsigned slot) { return slot - kFirstXenSlot < kXenSlots; }

}  // namespace bulkhead::abi::xen::pv
