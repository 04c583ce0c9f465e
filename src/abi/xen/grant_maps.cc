#include "abi/xen/grant_maps.h"

#include <utility>

namespace bulkhead::abi::xen {

bool GrantMaps::add(const Mapping& mapping, u32& handle) {
  Lock lock{mutex_};
  if (!free_.empty()) {
    handle = free_.back();
    free_.pop_back();
    mappings_[handle] = mapping;
    return true;
  }
  if (mappings_.size() == kMost) return false;
  handle = static_cast<u32>(mappings_.size());
  mappings_.push_back(mapping);
  return true;
}

// A frame is seen by the guest before it has a handle for it: it cannot take away what is not there yet.
i16 GrantMaps::map(Caller& caller, gnttab_map_grant_ref_t& op) {
  const auto refused = [this](i16 status) { return counters_[kGrantsRefused].add(), status; };
  if (!(op.flags & (GNTMAP_host_map | GNTMAP_device_map))) return refused(GNTST_bad_gntref);
  if (op.dom == 0) return refused(GNTST_bad_gntref);  // domain 0 grants nothing to guests
  if (op.dom != DOMID_SELF && op.dom != config_.domid) return refused(GNTST_bad_domain);
  Mapping mapping{0, op.ref, op.flags};
  GrantTable::Access access;
  const i16 verdict = grants_.take(op.ref, config_.domid, mapping.writable(), false, access);
  if (verdict != GNTST_okay) return verdict;
  mapping.frame = access.frame;
  i16 status = GNTST_okay;
  if (op.flags & GNTMAP_host_map) status = frames_.map_grant(caller, mapping.frame, op.host_addr, op.flags);
  if (status == GNTST_okay && !add(mapping, op.handle)) {
    status = GNTST_no_space;
    if (op.flags & GNTMAP_host_map) frames_.unmap_grant(caller, mapping.frame, op.host_addr, op.flags, 0);
  }
  if (status != GNTST_okay) {
    grants_.drop(op.ref, mapping.writable());
    return refused(status);
  }
  op.dev_bus_addr = mapping.frame << kPageShift;
  return GNTST_okay;
}

// The handle is taken first, so that of two that give it back at once one has none; it is back if the page is not
// where the guest says.
i16 GrantMaps::unmap(Caller& caller, u32 handle, u64 address, u64 replacement) {
  Mapping mapping;
  {
    Lock lock{mutex_};
    if (handle < mappings_.size()) mapping = std::exchange(mappings_[handle], {});
  }
  if (mapping.flags == 0) {
    counters_[kGrantBadUnmaps].add();
    return GNTST_bad_handle;
  }
  i16 status = GNTST_okay;
  if (address != 0 && (mapping.flags & GNTMAP_host_map))
    status = frames_.unmap_grant(caller, mapping.frame, address, mapping.flags, replacement);
  if (status == GNTST_okay) grants_.drop(mapping.reference, mapping.writable());
  Lock lock{mutex_};
  if (status == GNTST_okay) {
    free_.push_back(handle);
  } else {
    mappings_[handle] = mapping;
    counters_[kGrantBadUnmaps].add();
  }
  return status;
}

}  // namespace bulkhead::abi::xen
