// What one domain may make the store hold. The defaults are those of xenstored in Xen 4.17; domain 0 has no limits but
// those of the protocol itself.
#pragma once
#include <cstddef>

#include "base/ints.h"

namespace bulkhead::device::xenbus::store {

struct Limits {
  unsigned nodes = 1000;              // that the domain owns
  unsigned value_bytes = 2048;        // of one node
  unsigned permissions = 5;           // entries of one node
  unsigned watches = 128;             //
  unsigned transactions = 10;         // open at once
  unsigned transaction_nodes = 1024;  // that one transaction may look at, and changes that it may make
  u64 memory_bytes = 2560_KiB;        // nodes that the domain owns, and what its open transactions remember
  unsigned replies = 20;              // not yet taken: until then no further request is read
  unsigned events = 256;              // not yet taken: until then no further request is read
  unsigned events_kept = 1024;        // beyond that an event says only that something below the watch has changed
};

}  // namespace bulkhead::device::xenbus::store
