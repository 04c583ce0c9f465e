// What the file server's process gives up before it serves.
#pragma once
#include <string>
#include <vector>

#include "base/result.h"
#include "fs/process/file_server.h"
#include "fs/server/server.h"

namespace bulkhead::fs {

struct Confined {
  std::vector<Share> shares;
  std::string descriptors;  // where /proc/self/fd is now
  bool namespaces = false;  // false: this host lets us have none; the rest holds
  bool switch_users = false;
};

// One thread only, once. Errors: a share that cannot be opened.
Result<Confined> confine(const std::vector<ShareSpec>& shares);

// No new privileges, no capabilities but those that files need, no system calls but those of a file server: any other
// fails with ENOSYS from here on.
Result<void> seal_server(bool switch_users);

}  // namespace bulkhead::fs
