// The file systems a zone's root may have.
#pragma once
#include <string>
#include <string_view>

#include "base/ints.h"
#include "base/result.h"

namespace bulkhead::zone {

enum class RootFormat : u8 { kErofs, kExt4 };
// Writes kept in memory, or on the disk; or no disk at all, but an empty root in memory that has just the pod agent.
enum class RootAccess : u8 { kOverlay, kWritable, kMemory };

std::string_view format_name(RootFormat format);  // as the guest's mount calls it

// By the superblock's magic number. Errors: unreadable, or neither of the two (a partition table, say).
Result<RootFormat> detect_root_format(const std::string& path);

}  // namespace bulkhead::zone
