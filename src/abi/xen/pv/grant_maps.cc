// Grants that a PV guest maps itself: entries of its own page tables [xen/grant_table.h gnttab_map_grant_ref].
#include <xen/grant_table.h>

#include "abi/xen/pv/call.h"

namespace bulkhead::abi::xen::pv {
namespace {

constexpr unsigned kFirstAvailableBit = 9;  // of an entry, 3 of them
constexpr u64 kAvailableBits = 7;

u64 entry_for(u64 frame, u32 flags) {
  const u64 available = flags >> _GNTMAP_guest_avail0 & kAvailableBits;
  const u64 writable = (flags & GNTMAP_readonly) ? 0 : kWritable;
  return make_entry(frame, kPresent | kUser | kAccessed | kDirty | writable | available << kFirstAvailableBit);
}

}  // namespace

// `address` is where the page shall be seen, or where the entry lies.
std::optional<u64> Guest::grant_entry(const Call& call, u64 address, u32 flags) {
  if (flags & GNTMAP_contains_pte) return address;
  return memory_.leaf_entry(call.v.kernel_root, address);
}

i16 Guest::map_grant(Caller& caller, u64 frame, u64 address, u32 flags) {
  const auto entry = grant_entry(static_cast<Call&>(caller), address, flags);
  const bool mapped = entry && memory_.show_grant(*entry, entry_for(frame, flags)) == 0;
  return mapped ? GNTST_okay : GNTST_general_error;
}

i16 Guest::unmap_grant(Caller& caller, u64 frame, u64 address, u32 flags, u64 replacement) {
  Call& call = static_cast<Call&>(caller);
  if (replacement != 0 && (flags & GNTMAP_contains_pte)) return GNTST_general_error;
  const auto entry = grant_entry(call, address, flags);
  const auto from = replacement != 0 ? memory_.leaf_entry(call.v.kernel_root, replacement) : std::optional<u64>{0};
  if (!entry || !from || memory_.hide_grant(*entry, frame, *from) != 0) return GNTST_general_error;
  flush_own(call.cpu);
  call.cpu.flush_others(~(u64{1} << call.cpu.index()));
  return GNTST_okay;
}

}  // namespace bulkhead::abi::xen::pv
