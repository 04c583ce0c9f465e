#include "device/xenbus/blk/blk_request.h"

#include <stdint.h>
#include <string.h>
#include <xen/io/blkif.h>

#include <algorithm>

#include "base/bits.h"

namespace bulkhead::device::xenbus {

using block::IoStatus;
using block::kSectorSize;

namespace {

constexpr unsigned kSectorsPerPage = kPageSize / kSectorSize;

i16 response_of(IoStatus status) {
  switch (status) {
    case IoStatus::kOk:
      return BLKIF_RSP_OKAY;
    case IoStatus::kUnsupported:
      return BLKIF_RSP_EOPNOTSUPP;
    default:
      return BLKIF_RSP_ERROR;
  }
}

}  // namespace

i16 BlkRequests::refuse(BlkCounter why, i16 status) {
  counters_[why].add();
  return status;
}

i16 BlkRequests::run(const BlkRequest& request) {
  const i16 status = dispatch(request);
  pages_.release();
  buffers_.clear();
  counters_[BlkCounter::kRequests].add();
  return status;
}

i16 BlkRequests::dispatch(const BlkRequest& request) {
  switch (request.operation) {
    case BLKIF_OP_READ:
    case BLKIF_OP_WRITE:
    case BLKIF_OP_WRITE_BARRIER:
    case BLKIF_OP_FLUSH_DISKCACHE:
      if (request.segment_count > BlkRequest::kMaxDirect) return refuse(BlkCounter::kBadRequests, BLKIF_RSP_ERROR);
      return transfer(request.operation, request.sector, std::span{request.segments}.first(request.segment_count));
    case BLKIF_OP_INDIRECT:
      return indirect(request);
    case BLKIF_OP_DISCARD:
      return discard(request);
    default:
      return refuse(BlkCounter::kUnknownOperations, BLKIF_RSP_EOPNOTSUPP);
  }
}

void BlkRequests::add_buffer(std::byte* data, u64 length) {
  // Neighbours in the guest's memory are neighbours in ours.
  if (!buffers_.empty() && buffers_.back().data + buffers_.back().length == data)
    buffers_.back().length += length;
  else
    buffers_.push_back({data, length});
}

bool BlkRequests::collect(std::span<const BlkSegment> segments, PageAccess access) {
  for (const BlkSegment& segment : segments) {
    if (segment.first_sector > segment.last_sector || segment.last_sector >= kSectorsPerPage) {
      counters_[BlkCounter::kBadRequests].add();
      return false;
    }
  }
  for (const BlkSegment& segment : segments) {
    std::byte* const page = pages_.hold(segment.reference, access);
    if (page == nullptr) {
      counters_[BlkCounter::kBadGrants].add();
      return false;
    }
    add_buffer(page + segment.first_sector * kSectorSize,
               (segment.last_sector - segment.first_sector + 1u) * kSectorSize);
  }
  return true;
}

// A barrier's and a flush's segments, if any, are written between what must come before and what must come after. All
// that came before is done: one thread carries out the requests of all queues.
i16 BlkRequests::transfer(u8 operation, u64 sector, std::span<const BlkSegment> segments) {
  const bool reads = operation == BLKIF_OP_READ;
  const bool barrier = operation == BLKIF_OP_WRITE_BARRIER;
  const bool flushes = barrier || operation == BLKIF_OP_FLUSH_DISKCACHE;
  if (segments.empty() && !flushes) return refuse(BlkCounter::kBadRequests, BLKIF_RSP_ERROR);
  if (!collect(segments, reads ? PageAccess::kWrite : PageAccess::kRead)) return BLKIF_RSP_ERROR;
  if (reads) return response_of(core_.read(sector, buffers_));
  IoStatus status = flushes ? core_.flush() : IoStatus::kOk;
  if (status == IoStatus::kOk && !segments.empty()) {
    status = core_.write(sector, buffers_);
    if (status == IoStatus::kOk && barrier) status = core_.flush();
  }
  return response_of(status);
}

// The segments are copied out of the guest's page before any is judged.
bool BlkRequests::copy_indirect(const BlkRequest& request) {
  static_assert(kMaxIndirectSegments <= kSegmentsPerPage, "so that one page holds them");
  std::array<std::byte, kMaxIndirectSegments * kSegmentBytes> copy;
  const GrantedPage page{grants_, request.indirect_pages[0], PageAccess::kRead};
  if (!page) return false;
  memcpy(copy.data(), page.data(), request.segment_count * kSegmentBytes);
  indirect_segments_.clear();
  for (u32 i = 0; i < request.segment_count; ++i)
    indirect_segments_.push_back(decode_segment(std::span{copy}.subspan(i * kSegmentBytes).first<kSegmentBytes>()));
  return true;
}

i16 BlkRequests::indirect(const BlkRequest& request) {
  const u8 operation = request.indirect_operation;
  const bool possible = operation == BLKIF_OP_READ || operation == BLKIF_OP_WRITE;
  if (!possible || request.segment_count == 0 || request.segment_count > kMaxIndirectSegments)
    return refuse(BlkCounter::kBadRequests, BLKIF_RSP_ERROR);
  if (!copy_indirect(request)) return refuse(BlkCounter::kBadGrants, BLKIF_RSP_ERROR);
  return transfer(operation, request.sector, indirect_segments_);
}

i16 BlkRequests::discard(const BlkRequest& request) {
  // The header allows a backend without discard-secure to ignore the flag. Whoever asks for unrecoverable data is
  // better told that it did not happen.
  if (!core_.supports_discard() || core_.read_only() || (request.discard_flags & BLKIF_DISCARD_SECURE) != 0)
    return refuse(BlkCounter::kUnknownOperations, BLKIF_RSP_EOPNOTSUPP);
  if (!range_within(request.sector, request.discard_sectors, core_.sectors()))
    return refuse(BlkCounter::kBadRequests, BLKIF_RSP_ERROR);
  IoStatus status = IoStatus::kOk;
  for (u64 done = 0; done < request.discard_sectors && status == IoStatus::kOk;) {
    const u64 piece = std::min<u64>(request.discard_sectors - done, BlockCore::kMaxRangeSectors);
    status = core_.discard(request.sector + done, static_cast<u32>(piece));
    done += piece;
  }
  return response_of(status);
}

}  // namespace bulkhead::device::xenbus
