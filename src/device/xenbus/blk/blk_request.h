// One request of a Xen disk, from its checked form to calls of the core.
#pragma once
#include <vector>

#include "device/core/block/block_core.h"
#include "device/xenbus/blk/blk_abi.h"
#include "device/xenbus/blk/blk_pages.h"

namespace bulkhead::device::xenbus {

// One for each queue; its thread's only.
class BlkRequests {
 public:
  static constexpr unsigned kMaxIndirectSegments = 256;

  BlkRequests(BlockCore& core, GrantPort& grants, std::size_t persistent, BlkCounters& counters)
      : core_{core}, grants_{grants}, counters_{counters}, pages_{grants, persistent, counters} {}

  // Carries the request out and returns its BLKIF_RSP_*. No page of it is mapped afterwards, except persistent ones.
  i16 run(const BlkRequest& request);

 private:
  i16 dispatch(const BlkRequest& request);
  i16 transfer(u8 operation, u64 sector, std::span<const BlkSegment> segments);
  i16 indirect(const BlkRequest& request);
  i16 discard(const BlkRequest& request);
  bool collect(std::span<const BlkSegment> segments, PageAccess access);
  void add_buffer(std::byte* data, u64 length);
  bool copy_indirect(const BlkRequest& request);
  i16 refuse(BlkCounter why, i16 status);

  BlockCore& core_;
  GrantPort& grants_;
  BlkCounters& counters_;
  BlkPages pages_;
  std::vector<block::IoBuffer> buffers_;
  std::vector<BlkSegment> indirect_segments_;
};

}  // namespace bulkhead::device::xenbus
