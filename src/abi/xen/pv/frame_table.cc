#include "abi/xen/pv/frame_table.h"

#include <xen/errno.h>

#include <utility>

#include "base/bits.h"

namespace bulkhead::abi::xen::pv {
namespace {

// What a guest without hardware of its own may not ask for.
constexpr u64 kRefusedInLeaf = kWriteThrough | kCacheDisable | kLarge;  // kLarge is PAT there
constexpr u64 kRefusedInTable = kRefusedInLeaf | kGlobal;

thread_local u64 tables_walked = 0;

u64 load(const u64* entry) { return __atomic_load_n(entry, __ATOMIC_ACQUIRE); }

}  // namespace

FrameTable::FrameTable(const GuestMemory& memory, u64 ram_frames, u64 all_frames, u64 first)
    : memory_{memory}, frames_(all_frames), first_{first} {
  for (u64 i = 0; i < all_frames; ++i) frames_[i].owner = i < ram_frames ? Owner::kGuest : Owner::kXen;
}

u64* FrameTable::table(u64 frame) const {
  return reinterpret_cast<u64*>(memory_.host(Gpa{frame << kPageShift}, kPageSize));
}

i64 FrameTable::get_type(u64 number, FrameType type) {
  if (!is_guests(number)) return -XEN_EINVAL;
  Frame& frame = (*this)[number];
  if (frame.type_uses == ~u32{0}) return -XEN_EINVAL;
  if (frame.type_uses != 0) {
    if (frame.type != type) return type == FrameType::kData ? -XEN_EINVAL : -XEN_EBUSY;
    ++frame.type_uses;
    return 0;
  }
  if (type == FrameType::kData)
    frame.written = true;
  else
    end_writes(number);
  frame.type = type;
  frame.type_uses = 1;  // a table that names itself finds this level, and is refused by it
  i64 error = 0;
  if (const unsigned level = table_level(type); level != 0)
    error = validate(number, level);
  else if (type == FrameType::kDescriptors)
    error = validate_descriptors(number);
  if (error != 0) {
    frame.type = FrameType::kNone;
    frame.type_uses = 0;
  }
  return error;
}

void FrameTable::end_writes(u64 number) {
  if (std::exchange((*this)[number].written, false) && stop_writes_) stop_writes_(number);
}

// Counts of entries are taken back by what the tables say now. A guest that still writes through an old translation can
// change that behind our back: then its counts are wrong, and nothing else.
void FrameTable::put_type(u64 number) {
  Frame& frame = (*this)[number];
  if (frame.type_uses == 0 || --frame.type_uses != 0) return;
  if (const unsigned level = table_level(frame.type); level != 0) devalidate(number, level, kEntries);
  frame.type = FrameType::kNone;
}

i64 FrameTable::get_leaf(u64 entry) {
  if (entry & kRefusedInLeaf) return -XEN_EINVAL;
  const u64 number = frame_of_entry(entry);
  if (!exists(number)) return -XEN_EINVAL;
  Frame& frame = (*this)[number];
  switch (frame.owner) {
    case Owner::kNobody:
      return -XEN_EINVAL;
    case Owner::kXen:
      return -XEN_EPERM;
    case Owner::kGuest:
      if (entry & kWritable)
        if (const i64 error = get_type(number, FrameType::kData); error != 0) return error;
      break;
    case Owner::kShared:
      break;
  }
  ++frame.references;
  return 0;
}

i64 FrameTable::get_entry(unsigned level, u64 entry) {
  if (!(entry & kPresent)) return 0;
  if (level == 1) return get_leaf(entry);
  if (entry & kRefusedInTable) return -XEN_EINVAL;
  const u64 number = frame_of_entry(entry);
  if (const i64 error = get_type(number, table_type(level - 1)); error != 0) return error;
  ++(*this)[number].references;
  return 0;
}

void FrameTable::put_entry(unsigned level, u64 entry) {
  if (!(entry & kPresent)) return;
  const u64 number = frame_of_entry(entry);
  if (!exists(number)) return;
  Frame& frame = (*this)[number];
  if (frame.references != 0) --frame.references;
  if (frame.owner != Owner::kGuest) return;
  const FrameType type = level > 1 ? table_type(level - 1) : FrameType::kData;
  if (frame.type == type && (level > 1 || (entry & kWritable))) put_type(number);
}

i64 FrameTable::validate(u64 number, unsigned level) {
  ++validations_;
  ++tables_walked;
  u64* const entries = table(number);
  for (unsigned i = 0; i < kEntries; ++i) {
    if (level == 4 && is_xen_slot(i)) continue;
    const u64 entry = load(&entries[i]);
    if (const i64 error = get_entry(level, entry); error != 0) {
      devalidate(number, level, i);
      return error;
    }
    if (const u64 stored = adjusted(entry); stored != entry) __atomic_store_n(&entries[i], stored, __ATOMIC_RELEASE);
  }
  if (level == 4) put_xen_slots(entries);
  return 0;
}

u64 FrameTable::walked_here() { return tables_walked; }

void FrameTable::devalidate(u64 number, unsigned level, unsigned count) {
  ++tables_walked;
  u64* const entries = table(number);
  for (unsigned i = 0; i < count; ++i)
    if (level != 4 || !is_xen_slot(i)) put_entry(level, load(&entries[i]));
}

void FrameTable::put_xen_slots(u64* entries) const {
  for (unsigned i = 0; i < kXenSlots; ++i) entries[kFirstXenSlot + i] = 0;
  entries[kFirstXenSlot] = slots_.machine_to_physical;
  entries[kFirstXenSlot + 4] = slots_.per_domain;
}

i64 FrameTable::validate_descriptors(u64 number) {
  u64* const descriptors = table(number);
  for (unsigned i = 0; i < kPageSize / 8; ++i) {
    const auto good = checked_descriptor(load(&descriptors[i]));
    if (!good) return -XEN_EINVAL;
    __atomic_store_n(&descriptors[i], *good, __ATOMIC_RELEASE);
  }
  return 0;
}

std::optional<u64> checked_descriptor(u64 descriptor) {
  constexpr u64 kPresentBit = u64{1} << 47, kSegmentBit = u64{1} << 44, kTypeBits = u64{0xf} << 40,
                kRing3 = u64{3} << 45;
  if (!(descriptor & kPresentBit)) return descriptor;
  if (descriptor & kSegmentBit) return descriptor | kRing3;
  if (!(descriptor & kTypeBits)) return descriptor;  // type 0: nothing can load it
  return std::nullopt;
}

}  // namespace bulkhead::abi::xen::pv
