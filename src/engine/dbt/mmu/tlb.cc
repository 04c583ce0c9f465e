// The software TLBs and the cache of code pages: filling, flushing, and what keeps INVLPG honest for large pages, whose
// entries are made 4 KiB at a time but must go together.
#include "engine/dbt/cpu/cpu.h"
#include "engine/dbt/cpu/lapic.h"
#include "engine/dbt/cpu/shared.h"

namespace bulkhead::engine::dbt {
namespace {

constexpr u64 kPageMask = ~u64{0xfff};
constexpr u64 kTlbLarge = 4;  // gpa_page flag: made from a 2 or 4 MiB page
constexpr u64 kTlbHuge = 8;   // from a 1 GiB page

void clear(TlbEntry& entry) {
  entry.read_tag = entry.write_tag = kNoTag;
  entry.gpa_page = 0;
}

unsigned filter_bit(u64 linear) { return static_cast<unsigned>(((linear >> 21) * 0x9e3779b97f4a7c15) >> 52); }
u64 gbyte_bit(u64 linear) { return u64{1} << (((linear >> 30) * 0x9e3779b97f4a7c15) >> 58); }

}  // namespace

bool Cpu::smap_active() const { return (s.cr4 & kCr4Smap) && (s.cr0 & kCr0Pg); }

TlbSpace Cpu::space_for(unsigned cpl) const {
  if (deprivileged) return guest_mode == GuestMode::kUser ? TlbSpace::kUser : TlbSpace::kSupervisorAc;
  if (cpl == 3) return TlbSpace::kUser;
  return smap_active() && !(s.rflags & kAc) ? TlbSpace::kSupervisor : TlbSpace::kSupervisorAc;
}

// Implicit supervisor accesses: AC does not help them [SDM-3A §4.6.1].
TlbSpace Cpu::system_space() const {
  return smap_active() || deprivileged ? TlbSpace::kSupervisor : TlbSpace::kSupervisorAc;
}

void Cpu::log_fill(TlbSpace space, TlbEntry& entry, unsigned slot) {
  if (entry.gpa_page & kTlbUsed) return;
  if (fill_count_ == kFillLog) {
    fill_overflow_ = true;
    return;
  }
  fill_log_[fill_count_++] = static_cast<u16>(static_cast<unsigned>(space) << kTlbBits | slot);
  entry.gpa_page |= kTlbUsed;
}

void Cpu::note_large_page(u64 linear, u64 page_size) {
  if (page_size >= 1_GiB) gbyte_filter_ |= gbyte_bit(linear);
  for (const u64 half : {linear, linear ^ (page_size == 4_MiB ? 2_MiB : 0)})
    large_filter_[filter_bit(half) >> 6] |= u64{1} << (filter_bit(half) & 63);
}

bool Cpu::large_page_near(u64 linear) const {
  return (gbyte_filter_ & gbyte_bit(linear)) || bit(large_filter_[filter_bit(linear) >> 6], filter_bit(linear) & 63);
}

Cpu::Piece Cpu::fill_entry(TlbSpace space, u64 linear, Access access, const Translation& t) {
  const u64 gpa_page = t.gpa & kPageMask, linear_page = linear & kPageMask;
  std::byte* const page = lapic->claims(gpa_page) ? nullptr : shared.ram(gpa_page);
  if (page == nullptr) return {nullptr, t.gpa, false};
  SharedState::PageUse& use = shared.page_use(gpa_page);
  const bool code = use.code.load(std::memory_order_acquire) != 0;
  const Piece piece{page + (t.gpa & 0xfff), t.gpa, code && access == Access::kWrite};
  if (data_breakpoints_ && on_data_breakpoint_page(linear)) return piece;

  const unsigned slot = tlb_slot(linear);
  TlbEntry& entry = s.tlb[static_cast<unsigned>(space)][slot];
  if (entry.read_tag != linear_page) keep_victim(space, entry);
  const bool may_write = t.dirty && !code && (t.writable || (space != TlbSpace::kUser && !(s.cr0 & kCr0Wp)));
  if (const u8 self = SharedState::mask_of(index); may_write && !(use.writers.load(std::memory_order_relaxed) & self))
    use.writers.fetch_or(self, std::memory_order_relaxed);
  entry.read_tag = linear_page;
  entry.write_tag = may_write ? linear_page : kNoTag;
  entry.addend = reinterpret_cast<u64>(page) - linear_page;
  u64 flags = entry.gpa_page & kTlbUsed;
  if (t.global) flags |= kTlbGlobal;
  if (t.page_size > kPageSize) {
    flags |= t.page_size >= 1_GiB ? kTlbHuge : kTlbLarge;
    note_large_page(linear, t.page_size);
  }
  entry.gpa_page = gpa_page | flags;
  if (!t.global) log_fill(space, entry, slot);
  return piece;
}

void Cpu::keep_victim(TlbSpace space, const TlbEntry& entry) {
  if (entry.read_tag == kNoTag && entry.write_tag == kNoTag) return;
  Victim& victim = victims_[next_victim_++ % kVictims];
  victim.entry = entry;
  victim.entry.gpa_page &= ~kTlbUsed;  // that is the slot's
  victim.space = space;
}

std::byte* Cpu::take_back(TlbSpace space, u64 linear, Access access) {
  const u64 page = linear & kPageMask;
  for (Victim& victim : victims_) {
    if ((access == Access::kWrite ? victim.entry.write_tag : victim.entry.read_tag) != page || victim.space != space)
      continue;
    const unsigned slot = tlb_slot(linear);
    TlbEntry& entry = s.tlb[static_cast<unsigned>(space)][slot];
    TlbEntry back = victim.entry;
    const u64 used = entry.gpa_page & kTlbUsed;
    victim.entry = entry;
    victim.entry.gpa_page &= ~kTlbUsed;
    back.gpa_page |= used;
    entry = back;
    if (!(entry.gpa_page & kTlbGlobal)) log_fill(space, entry, slot);
    return reinterpret_cast<std::byte*>(entry.addend + linear);
  }
  return nullptr;
}

// A page that became code while we could write to it directly is found by that write entry: look before it goes.
bool Cpu::owes_settling(TlbSpace space, u64 linear) const {
  return (s.pending.load(std::memory_order_acquire) & kPendingInvalidate) &&
         (s.tlb[static_cast<unsigned>(space)][tlb_slot(linear)].write_tag != kNoTag ||
          victims_[next_victim_ % kVictims].entry.write_tag != kNoTag);
}
void Cpu::settle_direct_writes() {
  if (s.pending.load(std::memory_order_acquire) & kPendingInvalidate) [[unlikely]]
    shared.take_requests(*this);
}

void* Cpu::tlb_fill(u64 linear, unsigned size, Access access) {
  if ((linear & 0xfff) + size > kPageSize) return nullptr;
  if (long_mode() && !canonical(linear)) return nullptr;
  if (data_breakpoints_ && on_data_breakpoint_page(linear)) return nullptr;
  // Translated code cannot stand losing blocks (or the live vector registers) here; the interpreter can.
  if (owes_settling(s.tlb_space, linear)) return nullptr;
  if (std::byte* const host = take_back(s.tlb_space, linear, access)) return host;
  const Translation t = walk_in(linear, access, s.tlb_space, false);
  if (!t.ok) return nullptr;
  const Piece piece = fill_entry(s.tlb_space, linear, access, t);
  return piece.code ? nullptr : piece.host;
}

void Cpu::flush_tlb(bool also_global) {
  settle_direct_writes();
  ++generation_;
  if (also_global) ++global_generation_;
  const auto flush = [also_global](TlbEntry& entry) {
    if (!also_global && (entry.gpa_page & kTlbGlobal)) {
      entry.gpa_page &= ~kTlbUsed;
    } else {
      clear(entry);
    }
  };
  if (also_global || fill_overflow_) {
    each_tlb_entry(flush);
  } else {
    for (Victim& victim : victims_) flush(victim.entry);
    for (unsigned i = 0; i < fill_count_; ++i) flush(s.tlb[fill_log_[i] >> kTlbBits][fill_log_[i] & (kTlbEntries - 1)]);
  }
  fill_count_ = 0;
  fill_overflow_ = false;
  if (also_global) {
    for (u64& word : large_filter_) word = 0;
    gbyte_filter_ = 0;
  }
  if (code_observer != nullptr) code_observer->mappings_changed(also_global);
}

// Entries made from the large page around `linear`, whatever the page tables say by now.
void Cpu::drop_large_page(u64 linear) {
  each_tlb_entry([linear](TlbEntry& entry) {
    const u64 distance = entry.read_tag ^ linear;
    if (((entry.gpa_page & kTlbLarge) && distance < 4_MiB) || ((entry.gpa_page & kTlbHuge) && distance < 1_GiB)) {
      entry.read_tag = entry.write_tag = kNoTag;
      entry.gpa_page &= kTlbUsed;  // stays in the log
    }
  });
  ++generation_;
  ++global_generation_;
  if (code_observer != nullptr) code_observer->mappings_changed(true);
}

void Cpu::flush_tlb_page(u64 linear) {
  settle_direct_writes();
  const u64 page = linear & kPageMask;
  const auto drop = [page](TlbEntry& entry) {
    if (entry.read_tag != page && entry.write_tag != page) return;
    entry.read_tag = entry.write_tag = kNoTag;
    entry.gpa_page &= kTlbUsed;
  };
  for (auto& space : s.tlb) drop(space[tlb_slot(linear)]);
  for (Victim& victim : victims_) drop(victim.entry);
  for (const u64 user : {u64{0}, u64{1}}) {
    FetchEntry& entry = fetch_cache_[((linear >> 12) ^ user) % kFetchEntries];
    if (entry.tag == (page | user)) entry.tag = kNoTag;
  }
  if (large_page_near(linear)) return drop_large_page(linear);
  if (code_observer != nullptr) code_observer->mapping_changed(linear);
}

void Cpu::forget_entry(unsigned number, u64 gpa_page) {
  settle_direct_writes();
  const auto drop = [=](TlbEntry& entry) {
    if (((entry.gpa_page ^ gpa_page) & kPageMask) != 0 || (entry.read_tag >> 12 & 511) != number) return;
    entry.read_tag = entry.write_tag = kNoTag;
    entry.gpa_page &= kTlbUsed;  // stays in the log
  };
  for (auto& space : s.tlb)
    for (unsigned slot = number; slot < kTlbEntries; slot += 512) drop(space[slot]);
  for (Victim& victim : victims_) drop(victim.entry);
}

void Cpu::flush_tlb_write_entries_for(u64 gpa_page) {
  std::atomic<u8>& writers = shared.page_use(gpa_page).writers;
  const u8 self = SharedState::mask_of(index);
  if ((writers.load(std::memory_order_relaxed) & self) == 0) return;
  writers.fetch_and(static_cast<u8>(~self), std::memory_order_relaxed);
  each_tlb_entry([gpa_page](TlbEntry& entry) {
    if (((entry.gpa_page ^ gpa_page) & kPageMask) == 0) entry.write_tag = kNoTag;
  });
}

// Entries carry no PCID and every switch of CR3 flushes, so the present PCID is the only one that has any.
void Cpu::invpcid(u64 type, u64 pcid, u64 linear) {
  if (type > 3 || (type < 2 && pcid > 0xfff)) raise(kGp, 0);
  if (type < 2 && !(s.cr4 & kCr4Pcide) && pcid != 0) raise(kGp, 0);
  if (type == 0 && !canonical(linear)) raise(kGp, 0);
  if (type == 0) return flush_tlb_page(linear);
  flush_tlb(type == 2);
}

}  // namespace bulkhead::engine::dbt
