// One virtio-blk request: a chain of header, data and status byte, in whatever pieces [virtio-1.3 §5.2.6].
#pragma once
#include <optional>

#include "device/core/block/block_core.h"
#include "device/virtio/queue/chain.h"

namespace bulkhead::device::virtio {

inline constexpr u32 kMaxRangeSegments = 16;  // in one discard or write-zeroes request

// Runs the request and fills in its status byte. Returns what belongs in the used ring as length, or nothing when the
// chain has no room for header or status: then the driver is broken and the chain must not be used. `chain` stays.
// `write_through`: writes are safe when they complete, because the driver does not flush.
block::Task<std::optional<u32>> run_blk_request(BlockCore& core, Chain& chain, bool write_through);

}  // namespace bulkhead::device::virtio
