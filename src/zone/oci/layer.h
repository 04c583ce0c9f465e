// One layer of an image, onto those below it [oci-image-spec "Image Layer Filesystem Changeset"].
#pragma once
#include <optional>
#include <string>

#include "zone/oci/manifest.h"
#include "zone/oci/tree.h"
#include "zone/store/tool.h"

namespace bulkhead::zone {

// What unpacking may cost, all layers of an image together. A file of zeroes compresses a thousandfold, and so may an
// honest image; only what is beyond `free_bytes` is held against the ratio.
struct UnpackLimits {
  u64 bytes = 64_GiB, entries = 4'000'000;
  u64 free_bytes = 256_MiB, ratio = 400;
};

struct UnpackCounts {
  u64 bytes = 0, entries = 0;  // out of the compression
  u64 packed_bytes = 0;        // on disk
  u64 devices = 0;             // nodes that were left out
};

// `path`: a tar file, compressed or not. `content`: what it must be when uncompressed; not judged where it is missing.
// Errors: it is broken, hostile, too large, or not what it should be. The tree is then of no use.
Result<void> apply_layer(const std::string& path, const std::optional<Digest>& content, Tree& tree,
                         const UnpackLimits& limits, UnpackCounts& counts, Workshop& workshop);

}  // namespace bulkhead::zone
