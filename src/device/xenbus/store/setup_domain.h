// What a toolstack writes into the store for a new domain, with the permissions that xl of Xen 4.17 gives
// [xenstore-paths]. Devices add their own.
#pragma once
#include <optional>
#include <string>

#include "base/result.h"
#include "device/xenbus/store/store.h"

namespace bulkhead::device::xenbus::store {

// What ~/store and ~/console say of a ring that the guest knows already from its start info or HVM parameters.
struct RingPlace {
  u32 port = 0;   // event channel
  u64 frame = 0;  // MFN (PV) or GFN
};

struct DomainDescription {
  Domid domain = 1;
  std::string name, uuid;                 // the UUID in its usual form of 36 characters
  std::string type;                       // "pv" or "pvh", for ~/../libxl
  u64 memory_kib = 0;                     // the balloon's target
  u64 maximum_kib = 0;                    // 0: the same
  unsigned vcpus = 1, maximum_vcpus = 0;  // 0: the same; those beyond `vcpus` are offline
  std::string kernel, ramdisk, command_line;
  std::optional<RingPlace> store, console;
};

// Writes it all at once. Error: the UUID cannot be a path, or there is such a domain already.
Result<void> setup_domain(Store& store, const DomainDescription& domain);
// Removes it again, with the nodes of its devices on both sides.
void remove_domain(Store& store, const DomainDescription& domain);

}  // namespace bulkhead::device::xenbus::store
