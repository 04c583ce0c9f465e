// Which kernel a file is, and where its modules lie.
#pragma once
#include <string>

#include "base/ints.h"
#include "base/result.h"

namespace bulkhead::zone {

struct KernelImage {
  std::string path;
  std::string release;         // "6.1.0-43-cloud-amd64"; empty when the file does not say
  std::string modules_folder;  // .../lib/modules/RELEASE; empty when there is none (everything may be built in)
};

// Looks for the modules below the folder above the kernel's own (as in /boot/vmlinuz-X and /lib/modules/X), and in
// /lib/modules. Errors: the file cannot be read. Judging the format is the machine's loader's business.
Result<KernelImage> inspect_kernel(const std::string& path);

// The release that the first bytes of a bzImage [linux-boot "kernel_version"] or any part of an ELF kernel state.
std::string kernel_release(std::string_view file);

}  // namespace bulkhead::zone
