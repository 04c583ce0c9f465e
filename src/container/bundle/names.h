// What the OCI runtime specification has by name and the kernel by number [oci-runtime "Linux Configuration"].
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ints.h"
#include "base/result.h"

namespace bulkhead::container {

std::optional<unsigned> capability_number(std::string_view name);  // "CAP_CHOWN"
std::optional<unsigned> rlimit_number(std::string_view name);      // "RLIMIT_NOFILE"

struct MountOptions {
  u64 flags = 0;        // MS_*
  u64 propagation = 0;  // MS_PRIVATE, ... with MS_REC
  std::string data;     // what only the file system knows
  bool bind = false;
};
MountOptions mount_options(const std::vector<std::string>& words);

}  // namespace bulkhead::container
