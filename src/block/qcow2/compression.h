// One cluster, packed and unpacked: deflate (raw, window of 4 KiB) or zstd. Hostile input. Any thread.
#pragma once
#include <span>

#include "base/ints.h"
#include "spec/qcow2.h"

namespace bulkhead::block::qcow2 {

// True if `to` was filled to its last byte. What is behind the packed data's end is not looked at.
bool unpack(spec::qcow2::CompressionType type, std::span<const std::byte> from, std::span<std::byte> to);
// Bytes written to `to`; 0 if it does not fit there.
u64 pack(spec::qcow2::CompressionType type, std::span<const std::byte> from, std::span<std::byte> to);

}  // namespace bulkhead::block::qcow2
