// Locks on image files, by which programs that use the same image find out about one another. The scheme is the one
// that QEMU's tools use, so that they and we respect each other: a read lock (of an open file description, OFD) on
// byte 100 + n says "I do n", on byte 200 + n "nobody else may do n". n: 0 read, 1 write, 3 resize.
#pragma once
#include <string>

#include "base/result.h"
#include "block/node/node.h"

namespace bulkhead::block {

enum class FileLock : u8 {
  kAsUsed,  // readers share with readers, a writer is alone
  kShared,  // reads beside a writer (and may see half of its changes)
  kNone,
};

// Errors: somebody else has it, and still has a fifth of a second later.
Result<void> lock_file(int fd, const std::string& path, DiskAccess access, FileLock lock);
// As lock_file(), for an open file that is to take the place of `old`, which has locks of ours: they do not forbid
// ours. Errors: somebody else has it; `old` has its locks as before.
Result<void> lock_instead(int fd, int old, const std::string& path, DiskAccess access, DiskAccess before);
// Before close(), for the kernel may hold the open file a little longer than its last I/O.
void unlock_file(int fd);

}  // namespace bulkhead::block
