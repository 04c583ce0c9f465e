#include "abi/xen/grant_table.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>

#include "abi/xen/errors.h"

namespace bulkhead::abi::xen {
namespace {
constexpr u32 kPerFrameV1 = kPageSize / sizeof(grant_entry_v1_t), kPerFrameV2 = kPageSize / sizeof(grant_entry_v2_t);
constexpr u32 kPerStatusFrame = kPageSize / sizeof(grant_status_t);
constexpr u16 kInUse = GTF_reading | GTF_writing;
constexpr u16 kWholePage = kPageSize;
constexpr int kTries = 5;  // for an entry that changes under us

// An entry's first four bytes: flags and domid, which change together.
std::atomic_ref<u32> header(grant_entry_v1_t& entry) { return std::atomic_ref{*reinterpret_cast<u32*>(&entry)}; }
std::atomic_ref<u32> header(grant_entry_v2_t& entry) { return std::atomic_ref{*reinterpret_cast<u32*>(&entry)}; }
constexpr u16 bits_for(bool writable) { return writable ? kInUse : u16{GTF_reading}; }
constexpr Hold hold_for(bool writable) { return writable ? Hold::kWrite : Hold::kRead; }
}  // namespace

GrantTable::GrantTable(const DomainConfig& config, const XenPages& pages, Frames& frames, DomainCounters& counters)
    : config_{config},
      shared_{pages.grant_frames.data()},
      status_{pages.status_frames.data()},
      max_frames_{static_cast<u32>(pages.grant_frames.size() / kPageSize)},
      guest_{frames},
      counters_{counters},
      active_(kPerFrameV1) {}

u32 GrantTable::entries() const { return frames_ * (version_ == 1 ? kPerFrameV1 : kPerFrameV2); }

u32 GrantTable::version() const {
  Lock lock{mutex_};
  return version_;
}
u32 GrantTable::frames() const {
  Lock lock{mutex_};
  return frames_;
}
u64 GrantTable::mapped() const {
  Lock lock{mutex_};
  return mapped_;
}

u32 GrantTable::status_frames() const {
  Lock lock{mutex_};
  return version_ == 1 ? 0 : (frames_ * kPerFrameV2 + kPerStatusFrame - 1) / kPerStatusFrame;
}

bool GrantTable::grow(u32 frames) {
  if (frames > max_frames_) return false;
  Lock lock{mutex_};
  frames_ = std::max(frames_, frames);
  if (active_.size() < frames_ * kPerFrameV1) active_.resize(frames_ * kPerFrameV1);
  return true;
}

// Only plain entries have a meaning in both versions.
bool GrantTable::keeps_reserved(u32 version) const {
  if (version == 2) return true;
  for (u32 i = 0; i < GNTTAB_NR_RESERVED_ENTRIES; ++i) {
    const Offer offer = look(i);
    const u16 type = offer.flags & GTF_type_mask;
    if (type == GTF_transitive || (type == GTF_permit_access && (offer.flags & GTF_sub_page))) return false;
    if (v2(i).full_page.frame > ~u32{0}) return false;
  }
  return true;
}

void GrantTable::convert(u32 version) {
  std::array<grant_entry_v1_t, GNTTAB_NR_RESERVED_ENTRIES> kept{};
  for (u32 i = 0; i < kept.size(); ++i) {
    const Offer offer = look(i);
    kept[i].flags = offer.flags;
    kept[i].domid = offer.domain;
    kept[i].frame = version_ == 1 ? v1(i).frame : static_cast<u32>(v2(i).full_page.frame);
    if (version_ == 2) kept[i].flags = static_cast<u16>((kept[i].flags & ~kInUse) | (status(i) & kInUse));
  }
  std::memset(shared_, 0, frames_ * kPageSize);
  std::memset(status_, 0, (frames_ * kPerFrameV2 + kPerStatusFrame - 1) / kPerStatusFrame * kPageSize);
  for (u32 i = 0; i < kept.size(); ++i) {
    if (version == 1) {
      v1(i) = kept[i];
      continue;
    }
    status(i) = kept[i].flags & kInUse;
    v2(i).full_page.frame = kept[i].frame;
    v2(i).hdr = {static_cast<u16>(kept[i].flags & ~kInUse), kept[i].domid};
  }
}

i64 GrantTable::set_version(u32 version) {
  if (version != 1 && version != 2) return -kXEINVAL;
  if (version > config_.max_grant_version) return -kXENOSYS;
  Lock lock{mutex_};
  if (version == version_) return 0;
  for (u32 i = GNTTAB_NR_RESERVED_ENTRIES; i < entries(); ++i)
    if (active_[i].readers + active_[i].writers != 0) return -kXEBUSY;
  if (!keeps_reserved(version)) return -kXEINVAL;
  convert(version);
  version_ = version;
  return 0;
}

GrantTable::Offer GrantTable::look(u32 reference) const {
  const u32 word = version_ == 1 ? header(v1(reference)).load() : header(v2(reference)).load();
  return {static_cast<u16>(word), static_cast<u16>(word >> 16)};
}

i16 GrantTable::judge(Offer offer, u16 user, bool writable, bool sub_page_too) const {
  if ((offer.flags & GTF_type_mask) != GTF_permit_access || offer.domain != user) return GNTST_bad_gntref;
  if (writable && (offer.flags & GTF_readonly)) return GNTST_bad_gntref;
  if ((offer.flags & GTF_sub_page) && (version_ == 1 || !sub_page_too)) return GNTST_bad_gntref;
  return GNTST_okay;
}

// Version 1: the bits go into the word that was judged, or not at all. Version 2: the bits are in a word of ours, so
// the offer is looked at again behind them.
i16 GrantTable::pin(u32 reference, Offer& offer, u16 user, bool writable, bool sub_page_too) {
  const u16 bits = bits_for(writable);
  for (int i = 0; i < kTries; ++i) {
    offer = look(reference);
    if (const i16 verdict = judge(offer, user, writable, sub_page_too); verdict != GNTST_okay) return verdict;
    u32 seen = offer.flags | u32{offer.domain} << 16;
    if (version_ == 1) {
      if (header(v1(reference)).compare_exchange_strong(seen, seen | bits)) return GNTST_okay;
      continue;
    }
    std::atomic_ref{status(reference)}.fetch_or(bits);
    if (header(v2(reference)).load() == seen) return GNTST_okay;
    unpin(reference, bits);
  }
  return GNTST_general_error;
}

void GrantTable::unpin(u32 reference, u16 bits) {
  if (version_ == 1)
    header(v1(reference)).fetch_and(~u32{bits});
  else
    std::atomic_ref{status(reference)}.fetch_and(static_cast<u16>(~bits));
}

i16 GrantTable::read_target(u32 reference, Offer offer, Access& access) const {
  access.start = 0;
  access.length = kWholePage;
  if (version_ == 1) {
    access.frame = std::atomic_ref{v1(reference).frame}.load();
  } else {
    access.frame = std::atomic_ref{v2(reference).full_page.frame}.load();
    if (offer.flags & GTF_sub_page) {
      access.start = std::atomic_ref{v2(reference).sub_page.page_off}.load();
      access.length = std::atomic_ref{v2(reference).sub_page.length}.load();
      if (access.start + access.length > kWholePage) return GNTST_bad_gntref;
    }
  }
  return GNTST_okay;
}

// Somebody uses the grant already: what it said then counts, not what the entry says now.
i16 GrantTable::add_user(Active& active, u16 user, bool writable, bool sub_page_too) {
  const bool whole = active.access.start == 0 && active.access.length == kWholePage;
  if (active.domain != user || (writable && !active.writable) || (!whole && !sub_page_too)) return GNTST_bad_gntref;
  return GNTST_okay;
}

i16 GrantTable::add_first(u32 reference, Active& active, u16 user, bool writable, bool sub_page_too) {
  Offer offer;
  if (const i16 verdict = pin(reference, offer, user, writable, sub_page_too); verdict != GNTST_okay) return verdict;
  const i16 verdict = read_target(reference, offer, active.access);
  if (verdict != GNTST_okay) unpin(reference, bits_for(writable));
  active.domain = user;
  active.writable = !(offer.flags & GTF_readonly);
  return verdict;
}

void GrantTable::show_writing(u32 reference) {
  if (version_ == 1)
    header(v1(reference)).fetch_or(GTF_writing);
  else
    std::atomic_ref{status(reference)}.fetch_or(GTF_writing);
}

i16 GrantTable::take(u32 reference, u16 user, bool writable, bool sub_page_too, Access& access) {
  Lock lock{mutex_};
  i16 verdict = GNTST_bad_gntref;
  if (reference < entries()) {
    Active& active = active_[reference];
    const bool fresh = active.readers + active.writers == 0;
    verdict = fresh ? add_first(reference, active, user, writable, sub_page_too)
                    : add_user(active, user, writable, sub_page_too);
    std::byte* const page = verdict == GNTST_okay ? guest_.hold(active.access.frame, hold_for(writable)) : nullptr;
    if (verdict == GNTST_okay && page == nullptr) {
      verdict = GNTST_bad_page;
      if (fresh) unpin(reference, bits_for(writable));
    }
    if (verdict == GNTST_okay) {
      active.access.page = page;
      if (!fresh && writable && active.writers == 0) show_writing(reference);
      ++(writable ? active.writers : active.readers);
      access = active.access;
    }
  }
  if (verdict != GNTST_okay) counters_[kGrantsRefused].add();
  return verdict;
}

void GrantTable::drop(u32 reference, bool writable) {
  u64 frame = 0;
  {
    Lock lock{mutex_};
    Active* const active = reference < entries() ? &active_[reference] : nullptr;
    if (active == nullptr || (writable ? active->writers : active->readers) == 0) {
      counters_[kGrantBadUnmaps].add();
      return;
    }
    --(writable ? active->writers : active->readers);
    u16 bits = active->writers == 0 ? GTF_writing : 0;
    if (active->writers + active->readers == 0) bits = kInUse;
    if (bits != 0) unpin(reference, bits);
    frame = active->access.frame;
  }
  if (writable) guest_.note_written(frame);
  guest_.let_go(frame, hold_for(writable));
}

i16 GrantTable::swap(u32 a, u32 b) {
  Lock lock{mutex_};
  if (a >= entries() || b >= entries()) return GNTST_bad_gntref;
  for (const u32 i : {a, b})
    if (active_[i].readers + active_[i].writers != 0) return GNTST_eagain;
  if (a == b) return GNTST_okay;
  if (version_ == 1)
    std::swap(v1(a), v1(b));
  else
    std::swap(v2(a), v2(b));
  return GNTST_okay;
}

std::byte* GrantTable::map(u32 reference, bool writable) {
  Access access;
  if (take(reference, 0, writable, false, access) != GNTST_okay) return nullptr;
  Lock lock{mutex_};
  ++mapped_;
  return access.page;
}

void GrantTable::unmap(u32 reference, bool writable) {
  {
    Lock lock{mutex_};
    if (reference < entries() && (writable ? active_[reference].writers : active_[reference].readers) != 0) --mapped_;
  }
  drop(reference, writable);
}

void GrantTable::grant_for_guest(u32 reference, u64 frame) {
  Lock lock{mutex_};
  if (reference >= entries() || version_ != 1) return;
  v1(reference) = {GTF_permit_access, 0, static_cast<u32>(frame)};
}

}  // namespace bulkhead::abi::xen
