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

BlkJob::Answer BlkJob::refuse(BlkCounter why, i16 status) {
  counters_[why].add();
  co_return status;
}

BlkJob::Answer BlkJob::run(const BlkRequest& request) {
  const i16 status = co_await dispatch(request);
  held_.release();
  buffers_.clear();
  counters_[BlkCounter::kRequests].add();
  co_return status;
}

BlkJob::Answer BlkJob::dispatch(const BlkRequest& request) {
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

void BlkJob::add_buffer(std::byte* data, u64 length) {
  // Neighbours in the guest's memory are neighbours in ours.
  if (!buffers_.empty() && buffers_.back().data + buffers_.back().length == data)
    buffers_.back().length += length;
  else
    buffers_.push_back({data, length});
}

bool BlkJob::collect(std::span<const BlkSegment> segments, PageAccess access) {
  for (const BlkSegment& segment : segments) {
    if (segment.first_sector > segment.last_sector || segment.last_sector >= kSectorsPerPage) {
      counters_[BlkCounter::kBadRequests].add();
      return false;
    }
  }
  for (const BlkSegment& segment : segments) {
    std::byte* const page = held_.hold(segment.reference, access);
    if (page == nullptr) {
      counters_[BlkCounter::kBadGrants].add();
      return false;
    }
    add_buffer(page + segment.first_sector * kSectorSize,
               (segment.last_sector - segment.first_sector + 1u) * kSectorSize);
  }
  return true;
}

// A barrier's and a flush's segments, if any, are written between what must come before and what must come after. What
// came before a barrier is done: its queue sees to that.
BlkJob::Answer BlkJob::transfer(u8 operation, u64 sector, std::span<const BlkSegment> segments) {
  const bool reads = operation == BLKIF_OP_READ;
  const bool barrier = operation == BLKIF_OP_WRITE_BARRIER;
  const bool flushes = barrier || operation == BLKIF_OP_FLUSH_DISKCACHE;
  if (segments.empty() && !flushes) co_return co_await refuse(BlkCounter::kBadRequests, BLKIF_RSP_ERROR);
  if (!collect(segments, reads ? PageAccess::kWrite : PageAccess::kRead)) co_return BLKIF_RSP_ERROR;
  IoStatus status = IoStatus::kOk;
  if (reads) {
    status = co_await core_.read(sector, buffers_);
    co_return response_of(status);
  }
  if (flushes) status = co_await core_.flush();
  if (status == IoStatus::kOk && !segments.empty()) {
    status = co_await core_.write(sector, buffers_);
    if (status == IoStatus::kOk && barrier) status = co_await core_.flush();
  }
  co_return response_of(status);
}

// The segments are copied out of the guest's page before any is judged.
bool BlkJob::copy_indirect(const BlkRequest& request) {
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

BlkJob::Answer BlkJob::indirect(const BlkRequest& request) {
  const u8 operation = request.indirect_operation;
  const bool possible = operation == BLKIF_OP_READ || operation == BLKIF_OP_WRITE;
  if (!possible || request.segment_count == 0 || request.segment_count > kMaxIndirectSegments)
    return refuse(BlkCounter::kBadRequests, BLKIF_RSP_ERROR);
  if (!copy_indirect(request)) return refuse(BlkCounter::kBadGrants, BLKIF_RSP_ERROR);
  return transfer(operation, request.sector, indirect_segments_);
}

BlkJob::Answer BlkJob::discard(const BlkRequest& request) {
  // The header allows a backend without discard-secure to ignore the flag. Whoever asks for unrecoverable data is
  // better told that it did not happen.
  if (!core_.supports_discard() || core_.read_only() || (request.discard_flags & BLKIF_DISCARD_SECURE) != 0)
    co_return co_await refuse(BlkCounter::kUnknownOperations, BLKIF_RSP_EOPNOTSUPP);
  if (!range_within(request.sector, request.discard_sectors, core_.sectors()))
    co_return co_await refuse(BlkCounter::kBadRequests, BLKIF_RSP_ERROR);
  IoStatus status = IoStatus::kOk;
  for (u64 done = 0; done < request.discard_sectors && status == IoStatus::kOk;) {
    const u64 piece = std::min<u64>(request.discard_sectors - done, BlockCore::kMaxRangeSectors);
    status = co_await core_.discard(request.sector + done, static_cast<u32>(piece));
    done += piece;
  }
  co_return response_of(status);
}

}  // namespace bulkhead::device::xenbus
