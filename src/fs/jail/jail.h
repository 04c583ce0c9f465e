// What a process gives up before it reads what it does not trust: files but those named, the network, capabilities,
// system calls. For processes of one thread.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/ints.h"
#include "base/result.h"

namespace bulkhead::fs {

// Mount, network, IPC and host name namespaces of our own; without privilege by a user namespace with nobody but us in
// it. False: this host lets us have none.
bool own_namespaces();

struct JailedPath {
  std::string path;  // on the host; a folder with what is mounted below it, or a file
  std::string at;    // absolute, in the new root
  bool read_only = false;
};
// After own_namespaces(): a read-only root with `paths` in it, /proc/self/fd at `descriptors`, and nothing else. What
// the host mounts below a path later comes, too. Errors: a path that is not there. Then the old root may be gone.
Result<void> new_root(const std::vector<JailedPath>& paths, const std::string& descriptors);

// No new privileges, no capabilities but `kept`, no system calls but those for files and `more`: others fail with
// ENOSYS from here on (syscall_filter.cc; nothing is filtered under a sanitizer, whose run-time makes many more).
Result<void> seal(std::span<const unsigned> kept, std::span<const long> more = {});
Result<void> filter_syscalls(std::span<const long> more);

// Whether we are root and have all of these.
bool have_capabilities(std::span<const unsigned> wanted);

}  // namespace bulkhead::fs
