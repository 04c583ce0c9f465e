// From what the user named to a disk image that a zone can start from.
#pragma once
#include <string>

#include "zone/image/root_format.h"
#include "zone/store/cache.h"

namespace bulkhead::zone {

struct RootfsRequest {
  std::string source;    // a folder, a disk image, or empty for the default Debian
  std::string writable;  // a disk image to be written to as the root; made from `source` if it does not exist
  bool pod = false;      // none of the two: the root of a pod's zone, whose containers bring their own
};

struct RootDisk {
  std::string path;  // empty with kMemory
  RootFormat format = RootFormat::kErofs;
  RootAccess access = RootAccess::kOverlay;
};

// Errors: the source is not there or not such a thing; packing failed; the writable image is read-only or not ext4.
Result<RootDisk> prepare_rootfs(const RootfsRequest& request, Cache& cache, Workshop& workshop);

}  // namespace bulkhead::zone
