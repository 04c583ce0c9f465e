// Grants that the guest maps itself, by the handles that it has of them [xen/grant_table.h gnttab_map_grant_ref]. Only
// its own: nobody else grants it anything. Any thread.
#pragma once
#include <xen/grant_table.h>

#include <vector>

#include "abi/xen/grant_table.h"

namespace bulkhead::abi::xen {

class GrantMaps {
 public:
  static constexpr std::size_t kMost = 32768;  // mappings at a time

  GrantMaps(const DomainConfig& config, GrantTable& grants, Frames& frames, DomainCounters& counters)
      : config_{config}, grants_{grants}, frames_{frames}, counters_{counters} {}

  // Statuses are GNTST_*. `op` gets the handle.
  i16 map(Caller& caller, gnttab_map_grant_ref_t& op) BH_EXCLUDES(mutex_);
  // `replacement`: where lies what shall be seen at `address` then, or 0.
  i16 unmap(Caller& caller, u32 handle, u64 address, u64 replacement) BH_EXCLUDES(mutex_);

 private:
  struct Mapping {
    u64 frame = 0;
    u32 reference = 0;
    u32 flags = 0;  // GNTMAP_*; 0: none
    bool writable() const { return (flags & GNTMAP_readonly) == 0; }
  };
  bool add(const Mapping& mapping, u32& handle) BH_EXCLUDES(mutex_);

  const DomainConfig& config_;
  GrantTable& grants_;
  Frames& frames_;
  DomainCounters& counters_;
  Mutex mutex_;
  std::vector<Mapping> mappings_ BH_GUARDED_BY(mutex_);
  std::vector<u32> free_ BH_GUARDED_BY(mutex_);
};

}  // namespace bulkhead::abi::xen
