// One request of a Xen disk, from its checked form to calls of the core.
#pragma once
#include <vector>

#include "device/core/block/block_core.h"
#include "device/xenbus/blk/blk_abi.h"
#include "device/xenbus/blk/blk_pages.h"

namespace bulkhead::device::xenbus {

// What one request needs while it is in flight; used again for another afterwards. The disk's thread.
class BlkJob {
 public:
  static constexpr unsigned kMaxIndirectSegments = 256;

  BlkJob(BlockCore& core, GrantPort& grants, BlkPages& pages, BlkCounters& counters)
      : core_{core}, grants_{grants}, counters_{counters}, held_{pages} {}

  // Carries the request out and returns its BLKIF_RSP_*. No page of it is mapped afterwards, except persistent ones.
  block::Task<i16> run(const BlkRequest& request);

 private:
  using Answer = block::Task<i16>;
  Answer dispatch(const BlkRequest& request);
  Answer transfer(u8 operation, u64 sector, std::span<const BlkSegment> segments);
  Answer indirect(const BlkRequest& request);
  Answer discard(const BlkRequest& request);
  bool collect(std::span<const BlkSegment> segments, PageAccess access);
  void add_buffer(std::byte* data, u64 length);
  bool copy_indirect(const BlkRequest& request);
  Answer refuse(BlkCounter why, i16 status);

  BlockCore& core_;
  GrantPort& grants_;
  BlkCounters& counters_;
  BlkPages::Held held_;
  std::vector<block::IoBuffer> buffers_;
  std::vector<BlkSegment> indirect_segments_;
};

}  // namespace bulkhead::device::xenbus
