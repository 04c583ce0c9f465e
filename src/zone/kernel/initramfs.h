// The initramfs of a zone: the agent as /init and just the modules it must load to reach its root file system.
#pragma once
#include <string>

#include "engine/choose.h"
#include "zone/image/root_format.h"
#include "zone/kernel/kernel_image.h"
#include "zone/store/cache.h"

namespace bulkhead::zone {

struct InitramfsWants {
  engine::VirtBackend backend;
  RootFormat format;
  RootAccess access;
  bool files = false;  // the host's, by virtio-fs or FUSE
};

// The path of the archive in the cache, made if it is not there yet.
Result<std::string> initramfs_for(const KernelImage& kernel, const InitramfsWants& wants, Cache& cache,
                                  Workshop& workshop);

}  // namespace bulkhead::zone
