#include "abi/xen/pv/page_tables.h"

#include <sys/mman.h>
#include <xen/errno.h>

#include <algorithm>
#include <cstring>

namespace bulkhead::abi::xen::pv {
namespace {

// FLAT_RING3_CS32, _DS32 and _CS64 [xen/arch-x86/xen-x86_64.h] by their index within our page.
constexpr u64 kFlatCode32 = 0x00cffb000000ffff, kFlatData = 0x00cff3000000ffff, kFlatCode64 = 0x00affb000000ffff;
constexpr unsigned kCode32Index = 4, kDataIndex = 5, kCode64Index = 6;

constexpr u64 kGuestReadable = kPresent | kUser | kAccessed | kNoExecute;
constexpr u64 kOurs = kPresent | kWritable | kAccessed | kDirty | kNoExecute;
constexpr u64 kTable = kPresent | kWritable | kUser | kAccessed;

}  // namespace

PageTables::PageTables(const GuestMemory& memory, const Layout& layout)
    : memory_{memory},
      layout_{layout},
      frames_{memory, layout.ram_frames, layout.all_frames, layout.first},
      next_table_{layout.tables},
      current_pages_{layout.ram_frames} {
  Lock lock{mutex_};
  frames_.set_owner(layout.shared_info, Owner::kShared);
  for (unsigned i = 0; i < Layout::kGrantFrames + Layout::kStatusFrames; ++i)
    frames_.set_owner(layout.grant_frames + i, Owner::kShared);
  build_hypervisor_area();
}

u64 PageTables::new_table() {
  BH_ASSERT(next_table_ < layout_.tables + layout_.table_frames);
  return next_table_++;
}

void PageTables::build_hypervisor_area() {
  u64* const flat = frames_.table(layout_.descriptors);
  flat[kCode32Index] = kFlatCode32;
  flat[kDataIndex] = kFlatData;
  flat[kCode64Index] = kFlatCode64;

  const u64 top = new_table();
  u64 middle = 0, leaf = 0;
  for (u64 i = 0; i < layout_.machine_to_physical_frames; ++i) {
    const u64 page = layout_.first / kEntries + i;  // of the table as the guest sees it, which begins with frame 0
    if (middle == 0 || page % (u64{kEntries} * kEntries) == 0) {
      middle = new_table();
      frames_.table(top)[page / (u64{kEntries} * kEntries)] = make_entry(middle, kTable);
      leaf = 0;
    }
    if (leaf == 0 || page % kEntries == 0) {
      leaf = new_table();
      frames_.table(middle)[page / kEntries % kEntries] = make_entry(leaf, kTable);
    }
    const u64 frame = layout_.machine_to_physical + i;
    frames_.table(leaf)[page % kEntries] = make_entry(frame, kGuestReadable);
    u64* const values = frames_.table(frame);
    for (u64 j = 0; j < kEntries; ++j) values[j] = i * kEntries + j < layout_.ram_frames ? i * kEntries + j : ~u64{0};
  }
  const u64 domain_top = new_table(), domain_middle = new_table();
  descriptor_table_ = new_table();
  frames_.table(domain_top)[0] = make_entry(domain_middle, kTable);
  frames_.table(domain_middle)[0] = make_entry(descriptor_table_, kTable);
  frames_.set_xen_slots({make_entry(top, kTable), make_entry(domain_top, kTable)});
}

std::byte* PageTables::guest_page(u64 frame) {
  Lock lock{mutex_};
  return frames_.is_guests(frame) ? reinterpret_cast<std::byte*>(frames_.table(frame)) : nullptr;
}

std::byte* PageTables::hold(u64 frame, Hold use) {
  Lock lock{mutex_};
  if (!frames_.exists(frame)) return nullptr;
  const Owner owner = frames_[frame].owner;
  if (owner != Owner::kGuest && owner != Owner::kShared) return nullptr;
  if (owner == Owner::kGuest && use == Hold::kWrite && frames_.get_type(frame, FrameType::kData) != 0) return nullptr;
  ++frames_[frame].references;
  return reinterpret_cast<std::byte*>(frames_.table(frame));
}

// The guest may have got the counts wrong meanwhile, and the frame away: see FrameTable::put_type.
void PageTables::let_go(u64 frame, Hold use) {
  Lock lock{mutex_};
  Frame& held = frames_[frame];
  if (held.references != 0) --held.references;
  if (held.owner == Owner::kGuest && use == Hold::kWrite) frames_.put_type(frame);
}

u64 PageTables::frame_at(const std::byte* page) const {
  return layout_.first +
         (static_cast<u64>(page - memory_.host(Gpa{layout_.first << kPageShift}, kPageSize)) >> kPageShift);
}

i64 PageTables::counted(i64 result, Counter refused) {
  if (result != 0) counters_[refused].add();
  return result;
}

// ---- entries

i64 PageTables::update(u64 machine, u64 value, AccessedDirty bits, const OnLoss& on_loss) {
  const u64 frame = machine >> kPageShift;
  const auto index = static_cast<unsigned>((machine & 0xfff) / 8);
  Lock lock{mutex_};
  counters_[kUpdates].add();
  if (!frames_.is_guests(frame)) return counted(-XEN_EINVAL, kRefusedUpdates);
  const Frame& info = frames_[frame];
  const unsigned level = info.type_uses != 0 ? table_level(info.type) : 0;
  return counted(
      level == 0 ? update_data(frame, index, value) : update_entry(frame, level, index, value, bits, on_loss),
      kRefusedUpdates);
}

i64 PageTables::update_data(u64 frame, unsigned index, u64 value) {
  if (const i64 error = frames_.get_type(frame, FrameType::kData); error != 0) return error;
  __atomic_store_n(&frames_.table(frame)[index], value, __ATOMIC_RELEASE);
  memory_.note_written(Gpa{(frame << kPageShift) + index * 8}, 8);
  frames_.put_type(frame);
  return 0;
}

// The processor sets accessed and dirty bits at any moment, so an entry is exchanged and what really was there let go.
bool PageTables::table_is_empty(u64 frame) {
  const u64* const entries = frames_.table(frame);
  u64 all = 0;
  for (unsigned i = 0; i < kEntries; ++i) all |= entries[i];
  return !(all & kPresent);
}

void PageTables::note_loss(unsigned level, unsigned index, u64 before, u64 now, const OnLoss& on_loss) {
  constexpr u64 kGiven = kPresent | kWritable | kUser | kAccessed | kDirty;
  if (!(before & kPresent)) return;
  const bool moved = ((before ^ now) & kAddressMask) != 0, forbidden = (now & ~before & kNoExecute) != 0;
  if ((before & ~now & kGiven) == 0 && !forbidden && !moved) return;
  const bool code = !(before & kNoExecute) && (moved || forbidden || (before & ~now & (kPresent | kUser)) != 0);
  if (level > 1 && table_is_empty(frame_of_entry(before))) return;  // all that came from it was lost before
  const u64 order = losses_.fetch_add(1, std::memory_order_acq_rel);
  if (on_loss) on_loss({order, level, index, frame_of_entry(before), code});
}

i64 PageTables::update_entry(u64 frame, unsigned level, unsigned index, u64 value, AccessedDirty bits,
                             const OnLoss& on_loss) {
  if (level == 4 && is_xen_slot(index)) return -XEN_EINVAL;
  value = FrameTable::adjusted(value);
  u64* const entry = &frames_.table(frame)[index];
  u64 old = __atomic_load_n(entry, __ATOMIC_ACQUIRE);
  constexpr u64 kRelied = kAddressMask | kPresent | kWritable | kWriteThrough | kCacheDisable | kLarge | kGlobal;
  const bool relies_on_same = ((old ^ value) & kRelied) == 0;
  if (!relies_on_same)
    if (const i64 error = frames_.get_entry(level, value); error != 0) return error;
  const auto stored = [&] { return bits == AccessedDirty::kPreserve ? value | (old & (kAccessed | kDirty)) : value; };
  while (!__atomic_compare_exchange_n(entry, &old, stored(), false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
  }
  note_loss(level, index, old, stored(), on_loss);
  if (!relies_on_same) frames_.put_entry(level, old);
  return 0;
}

std::optional<u64> PageTables::leaf_entry(u64 root, u64 linear) {
  Lock lock{mutex_};
  u64 frame = root;
  for (unsigned level = 4; level > 1; --level) {
    const unsigned index = index_at(level, linear);
    if (!frames_.is_guests(frame) || (level == 4 && is_xen_slot(index))) return std::nullopt;
    const u64 entry = __atomic_load_n(&frames_.table(frame)[index], __ATOMIC_ACQUIRE);
    if (!(entry & kPresent)) return std::nullopt;
    frame = frame_of_entry(entry);
  }
  if (!frames_.is_guests(frame)) return std::nullopt;
  return frame << kPageShift | index_at(1, linear) * 8;
}

bool PageTables::is_leaf_table(u64 frame) {
  Lock lock{mutex_};
  return in_leaf_table(frame << kPageShift);
}

PageTables::Written PageTables::write_leaf_table(u64 frame, const u64* before, const u64* copy, const OnLoss& on_loss) {
  Lock lock{mutex_};
  if (!in_leaf_table(frame << kPageShift)) return Written::kRefused;
  u64* const entries = frames_.table(frame);
  for (unsigned i = 0; i < kEntries; ++i) {
    if (copy[i] == before[i]) continue;
    const u64 value = FrameTable::adjusted(copy[i]);
    if (frames_.get_entry(1, value) != 0) return counted(1, kRefusedUpdates), Written::kRefused;
    u64 old = before[i];
    if (!__atomic_compare_exchange_n(&entries[i], &old, value, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
      frames_.put_entry(1, value);
      return Written::kAgain;
    }
    counters_[kUpdates].add();
    note_loss(1, i, old, value, on_loss);
    frames_.put_entry(1, old);
  }
  return Written::kDone;
}

// ---- grants that the guest maps itself

bool PageTables::in_leaf_table(u64 machine) {
  const u64 frame = machine >> kPageShift;
  return machine % 8 == 0 && frames_.is_guests(frame) && frames_[frame].type_uses != 0 &&
         frames_[frame].type == FrameType::kL1;
}

u64 PageTables::read_entry(u64 machine) {
  return __atomic_load_n(&frames_.table(machine >> kPageShift)[(machine & 0xfff) / 8], __ATOMIC_ACQUIRE);
}

i64 PageTables::write_leaf_entry(u64 machine, u64 value) {
  return update_entry(machine >> kPageShift, 1, static_cast<unsigned>((machine & 0xfff) / 8), value,
                      AccessedDirty::kAsGiven);
}

i64 PageTables::show_grant(u64 machine, u64 value) {
  Lock lock{mutex_};
  return counted(in_leaf_table(machine) ? write_leaf_entry(machine, value) : -XEN_EINVAL, kRefusedUpdates);
}

i64 PageTables::hide_grant(u64 machine, u64 frame, u64 moved_from) {
  Lock lock{mutex_};
  if (!in_leaf_table(machine) || (moved_from != 0 && !in_leaf_table(moved_from)))
    return counted(-XEN_EINVAL, kRefusedUpdates);
  const u64 now = read_entry(machine);
  if (!(now & kPresent) || frame_of_entry(now) != frame) return counted(-XEN_EINVAL, kRefusedUpdates);
  const i64 error = write_leaf_entry(machine, moved_from != 0 ? read_entry(moved_from) : 0);
  if (error == 0 && moved_from != 0) write_leaf_entry(moved_from, 0);
  return counted(error, kRefusedUpdates);
}

// ---- whole tables

i64 PageTables::pin(u64 frame, unsigned level) {
  Lock lock{mutex_};
  counters_[kPins].add();
  if (!frames_.is_guests(frame) || frames_[frame].pinned) return counted(-XEN_EINVAL, kRefusedPins);
  const u64 before = frames_.validations();
  const i64 error = frames_.get_type(frame, table_type(level));
  counters_[kValidations].add(frames_.validations() - before);
  if (error != 0) return counted(error, kRefusedPins);
  frames_[frame].pinned = true;
  ++frames_[frame].references;
  return 0;
}

i64 PageTables::unpin(u64 frame) {
  Lock lock{mutex_};
  if (!frames_.is_guests(frame) || !frames_[frame].pinned) return counted(-XEN_EINVAL, kRefusedPins);
  frames_[frame].pinned = false;
  if (frames_[frame].references != 0) --frames_[frame].references;
  frames_.put_type(frame);
  return 0;
}

i64 PageTables::take_root(u64 frame) {
  Lock lock{mutex_};
  if (const i64 error = frames_.get_type(frame, FrameType::kL4); error != 0) return error;
  ++frames_[frame].references;
  return 0;
}

void PageTables::put_root(u64 frame) {
  Lock lock{mutex_};
  if (frames_[frame].references != 0) --frames_[frame].references;
  frames_.put_type(frame);
}

bool PageTables::same_kernel_half(u64 root, u64 other) {
  if (root == other) return true;
  Lock lock{mutex_};
  const u64 *a = frames_.table(root), *b = frames_.table(other);
  u64 differences = 0;  // no early way out: this runs at every switch, and they seldom differ
  for (unsigned i = kFirstXenSlot + kXenSlots; i < kEntries; ++i) differences |= a[i] ^ b[i];
  return (differences & ~(kAccessed | kDirty)) == 0;
}

// ---- descriptors

i64 PageTables::take_descriptors(u64 frame) {
  Lock lock{mutex_};
  if (const i64 error = frames_.get_type(frame, FrameType::kDescriptors); error != 0) return error;
  ++frames_[frame].references;
  return 0;
}

void PageTables::put_descriptors(u64 frame) {
  Lock lock{mutex_};
  if (frames_[frame].references != 0) --frames_[frame].references;
  frames_.put_type(frame);
}

// Anywhere in the guest's memory but in page tables; in a table of descriptors only what may stand there.
i64 PageTables::write_descriptor(u64 machine, u64 descriptor) {
  if (machine % 8 != 0) return -XEN_EINVAL;
  const auto good = checked_descriptor(descriptor);
  if (!good) return -XEN_EINVAL;
  const u64 frame = machine >> kPageShift;
  Lock lock{mutex_};
  if (!frames_.is_guests(frame)) return -XEN_EINVAL;
  if (frames_[frame].type_uses != 0 && frames_[frame].type == FrameType::kDescriptors) {
    __atomic_store_n(&frames_.table(frame)[(machine & 0xfff) / 8], *good, __ATOMIC_RELEASE);
    return 0;
  }
  return update_data(frame, static_cast<unsigned>((machine & 0xfff) / 8), *good);
}

void PageTables::map_descriptors(unsigned vcpu, std::span<const u64> frames) {
  Lock lock{mutex_};
  u64* const entries = frames_.table(descriptor_table_) + u64{vcpu} * kDescriptorPages;
  for (unsigned i = 0; i < kGuestDescriptorPages; ++i)
    entries[i] = i < frames.size() ? make_entry(frames[i], kOurs) : 0;
  entries[kGuestDescriptorPages] = make_entry(layout_.descriptors, kOurs);
}

// ---- data

u64& PageTables::physical_of(u64 frame) {
  const u64 index = frame - layout_.first;
  return frames_.table(layout_.machine_to_physical + index / kEntries)[index % kEntries];
}

i64 PageTables::set_machine_to_physical(u64 frame, u64 physical) {
  Lock lock{mutex_};
  if (!frames_.is_guests(frame)) return -XEN_EINVAL;
  physical_of(frame) = physical;
  return 0;
}

i64 PageTables::clear_page(u64 frame) {
  Lock lock{mutex_};
  if (const i64 error = frames_.get_type(frame, FrameType::kData); error != 0) return error;
  std::memset(frames_.table(frame), 0, kPageSize);
  memory_.note_written(Gpa{frame << kPageShift}, kPageSize);
  frames_.put_type(frame);
  return 0;
}

i64 PageTables::copy_page(u64 to, u64 from) {
  Lock lock{mutex_};
  if (!frames_.is_guests(from)) return -XEN_EINVAL;
  if (const i64 error = frames_.get_type(to, FrameType::kData); error != 0) return error;
  std::memmove(frames_.table(to), frames_.table(from), kPageSize);
  memory_.note_written(Gpa{to << kPageShift}, kPageSize);
  frames_.put_type(to);
  return 0;
}

// ---- ballooning

i64 PageTables::release(u64 frame) {
  Lock lock{mutex_};
  if (!frames_.is_guests(frame) || frames_[frame].type_uses != 0 || frames_[frame].references != 0) return -XEN_EINVAL;
  frames_.end_writes(frame);  // it may come back as a page table
  ::madvise(frames_.table(frame), kPageSize, MADV_REMOVE);
  memory_.note_written(Gpa{frame << kPageShift}, kPageSize);
  frames_[frame] = {};
  physical_of(frame) = ~u64{0};
  free_.push_back(frame);
  --current_pages_;
  return 0;
}

i64 PageTables::populate(u64& frame) {
  Lock lock{mutex_};
  if (free_.empty()) return -XEN_ENOMEM;
  const u64 physical = frame;
  frame = free_.back();
  free_.pop_back();
  frames_[frame] = {};
  frames_[frame].owner = Owner::kGuest;
  physical_of(frame) = physical;
  ++current_pages_;
  return 0;
}

u64 PageTables::current_pages() {
  Lock lock{mutex_};
  return current_pages_;
}

}  // namespace bulkhead::abi::xen::pv
