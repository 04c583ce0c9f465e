// When a folder is still what it was.
#pragma once
#include <string>

#include "base/ints.h"
#include "base/result.h"

namespace bulkhead::zone {

// A hash over every name below `folder` with its kind, owner, permissions, size, link target and times. File contents
// are not read: a changed content always changes the change time (ctime), which no program can set.
// Errors: something below cannot be looked at; the message names it.
Result<std::string> fingerprint(const std::string& folder);

// Bytes and number of files below `folder`, as a file system image must hold them.
struct FolderSize {
  u64 bytes = 0, files = 0;
};
Result<FolderSize> measure(const std::string& folder);

}  // namespace bulkhead::zone
