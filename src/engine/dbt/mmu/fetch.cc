// Code by linear address: instruction bytes and the guest-physical pages that hold them. Not data accesses, so they
// have a small cache of their own, by page and privilege.
#include "engine/dbt/cpu/cpu.h"
#include "engine/dbt/cpu/host_copy.h"
#include "engine/dbt/cpu/lapic.h"
#include "engine/dbt/cpu/shared.h"

namespace bulkhead::engine::dbt {
namespace {
constexpr u64 kPageMask = ~u64{0xfff};
constexpr unsigned kLongest = 15;
}  // namespace

u64 Cpu::fetch_tag(u64 linear) const { return (linear & kPageMask) | (space_for(s.cpl) == TlbSpace::kUser); }

Cpu::FetchEntry& Cpu::fetch_slot(u64 tag) { return fetch_cache_[((tag >> 12) ^ (tag & 1)) % kFetchEntries]; }

bool Cpu::still_holds(const FetchEntry& entry, u64 tag) const {
  return entry.tag == tag && entry.generation == (entry.global ? global_generation_ : generation_);
}

const Cpu::FetchEntry& Cpu::fetch_entry(u64 linear) {
  const u64 tag = fetch_tag(linear);
  FetchEntry& entry = fetch_slot(tag);
  if (still_holds(entry, tag)) return entry;
  const Translation t = walk_in(linear, Access::kExecute, space_for(s.cpl), false);
  if (!t.ok) raise_page_fault(linear, t.error);
  if (t.page_size > kPageSize) note_large_page(linear, t.page_size);
  entry.tag = tag;
  entry.gpa_page = t.gpa & kPageMask;
  entry.host = lapic->claims(t.gpa) ? nullptr : shared.ram(entry.gpa_page);
  entry.global = t.global;
  entry.generation = t.global ? global_generation_ : generation_;
  return entry;
}

bool Cpu::code_is_global(u64 linear) {
  const u64 tag = fetch_tag(linear);
  const FetchEntry& entry = fetch_slot(tag);
  return still_holds(entry, tag) ? entry.global : walk_in(linear, Access::kExecute, space_for(s.cpl), true).global;
}

u64 Cpu::translate_code(u64 linear) { return fetch_entry(linear).gpa_page | (linear & 0xfff); }

// How many bytes of code from `linear` on lie within CS.
u64 Cpu::fetch_limit(u64 linear) const {
  if (code_size() == CodeSize::k64) return kLongest;
  const Segment& cs = s.seg[kCs];
  const u64 offset = (linear - cs.base) & 0xffffffff;
  return offset > cs.limit ? 0 : cs.limit - offset + 1;
}

unsigned Cpu::fetch(u64 linear, u8* out15) {
  const bool wide = code_size() == CodeSize::k64;
  const u64 within = fetch_limit(linear);
  if (within == 0 || (wide && !canonical(linear))) raise(kGp, 0);
  unsigned wanted = within < kLongest ? static_cast<unsigned>(within) : kLongest;
  const unsigned first = static_cast<unsigned>(kPageSize - (linear & 0xfff));
  const FetchEntry here = fetch_entry(linear);
  // What is not RAM reads as all ones, which is no instruction.
  const auto copy = [](const FetchEntry& entry, u64 from, u8* out, unsigned length) {
    for (unsigned i = 0; i < length; ++i)
      out[i] = entry.host == nullptr ? u8{0xff} : static_cast<u8>(host_load(entry.host + (from & 0xfff) + i, 1));
  };
  if (wanted <= first) {
    copy(here, linear, out15, wanted);
    return wanted;
  }
  copy(here, linear, out15, first);
  const u64 next = wide ? next_page(linear) : next_page(linear) & 0xffffffff;
  if (wide && !canonical(next)) return first;
  // Setting A on a page from which nothing is executed would show: probe, and fetch for good only when it is needed.
  const Translation t = walk_in(next, Access::kExecute, space_for(s.cpl), true);
  if (!t.ok) return first;
  FetchEntry rest;
  rest.host = lapic->claims(t.gpa) ? nullptr : shared.ram(t.gpa & kPageMask);
  copy(rest, next, out15 + first, wanted - first);
  return wanted;
}

void Cpu::fetch_fault(u64 linear) {
  const bool wide = code_size() == CodeSize::k64;
  if (fetch_limit(linear) == 0 || (wide && !canonical(linear))) raise(kGp, 0);
  const Translation t = walk_in(linear, Access::kExecute, space_for(s.cpl), false);
  // Another vCPU may have mapped it meanwhile; the guest then sees a fault that its handler finds nothing wrong with.
  raise_page_fault(linear, t.ok ? (s.cpl == 3 ? 4u : 0u) : t.error);
}

}  // namespace bulkhead::engine::dbt
