// The compressions that kernel images use, unpacked on the host into memory of a known size.
#pragma once
#include <optional>
#include <span>
#include <string_view>

#include "base/ints.h"
#include "base/result.h"

namespace bulkhead::abi {

enum class Compression : u8 { kNone, kGzip, kXz, kLzma, kLz4, kZstd, kBzip2, kLzo };
std::string_view compression_name(Compression kind);

// By the first bytes. kLzo is recognised so that it can be refused by name. Nothing when no format matches.
std::optional<Compression> detect_compression(std::span<const std::byte> data);

// Unpacks `in` into all of `out`. Errors: corrupt, truncated, or the content has another length than `out`.
Result<void> decompress(Compression kind, std::span<const std::byte> in, std::span<std::byte> out);

// Unpacks only the beginning, as much as fits into `out`; returns how much that was. Errors: corrupt or truncated
// before `out` was full.
Result<u64> decompress_prefix(Compression kind, std::span<const std::byte> in, std::span<std::byte> out);

}  // namespace bulkhead::abi
