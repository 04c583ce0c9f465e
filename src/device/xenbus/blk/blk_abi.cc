#include "device/xenbus/blk/blk_abi.h"

#include <stdint.h>
#include <string.h>
#include <xen/io/blkif.h>
#include <xen/io/protocols.h>

#include <algorithm>
#include <cstddef>

#include "base/assert.h"

namespace bulkhead::device::xenbus {
namespace {

// What 32-bit x86 compilers make of the same structures: 64-bit fields are aligned to 4 bytes.
#pragma pack(push, 4)
struct Request32 {
  u8 operation, nr_segments;
  blkif_vdev_t handle;
  u64 id, sector_number;
  blkif_request_segment seg[BLKIF_MAX_SEGMENTS_PER_REQUEST];
};
struct Discard32 {
  u8 operation, flag;
  blkif_vdev_t handle;
  u64 id, sector_number, nr_sectors;
};
struct Indirect32 {
  u8 operation, indirect_op;
  u16 nr_segments;
  u64 id, sector_number;
  blkif_vdev_t handle;
  grant_ref_t indirect_grefs[BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST];
  u64 pad;
};
struct Response32 {
  u64 id;
  u8 operation;
  i16 status;
};
#pragma pack(pop)
static_assert(sizeof(blkif_request) == kMaxEntryBytes && sizeof(Request32) == 108);
static_assert(sizeof(blkif_response) == 16 && sizeof(Response32) == 12);
static_assert(sizeof(Indirect32) == 64 && sizeof(blkif_request_segment) == kSegmentBytes);
static_assert(BlkRequest::kMaxDirect == BLKIF_MAX_SEGMENTS_PER_REQUEST);
static_assert(BlkRequest::kMaxIndirectPages == BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST);

template <class T>
T copy_of(std::span<const std::byte> entry) {
  T value;
  BH_ASSERT(entry.size() >= sizeof value);
  memcpy(&value, entry.data(), sizeof value);
  return value;
}

BlkSegment segment_of(const blkif_request_segment& segment) {
  return {segment.gref, segment.first_sect, segment.last_sect};
}

template <class Direct, class Discard, class Indirect>
BlkRequest decode(std::span<const std::byte> entry) {
  BlkRequest request;
  request.operation = std::to_integer<u8>(entry[0]);
  if (request.operation == BLKIF_OP_DISCARD) {
    const auto raw = copy_of<Discard>(entry);
    request.discard_flags = raw.flag;
    request.id = raw.id;
    request.sector = raw.sector_number;
    request.discard_sectors = raw.nr_sectors;
  } else if (request.operation == BLKIF_OP_INDIRECT) {
    const auto raw = copy_of<Indirect>(entry);
    request.indirect_operation = raw.indirect_op;
    request.segment_count = raw.nr_segments;
    request.id = raw.id;
    request.sector = raw.sector_number;
    std::ranges::copy(raw.indirect_grefs, request.indirect_pages.begin());
  } else {
    const auto raw = copy_of<Direct>(entry);
    request.segment_count = raw.nr_segments;
    request.id = raw.id;
    request.sector = raw.sector_number;
    std::ranges::transform(raw.seg, request.segments.begin(), segment_of);
  }
  return request;
}

template <class Raw>
BlkResponse encode(u64 id, u8 operation, i16 status) {
  Raw raw;
  memset(&raw, 0, sizeof raw);  // the gaps too
  raw.id = id;
  raw.operation = operation;
  raw.status = status;
  BlkResponse response;
  response.size = sizeof raw;
  memcpy(response.storage.data(), &raw, sizeof raw);
  return response;
}

}  // namespace

std::optional<BlkAbi> blk_abi(std::string_view protocol) {
  if (protocol == XEN_IO_PROTO_ABI_X86_64) return BlkAbi::k64;
  if (protocol == XEN_IO_PROTO_ABI_X86_32) return BlkAbi::k32;
  return std::nullopt;
}

u32 entry_bytes(BlkAbi abi) { return abi == BlkAbi::k64 ? sizeof(blkif_request) : sizeof(Request32); }

BlkRequest decode_request(BlkAbi abi, std::span<const std::byte> entry) {
  if (abi == BlkAbi::k64) return decode<blkif_request, blkif_request_discard, blkif_request_indirect>(entry);
  return decode<Request32, Discard32, Indirect32>(entry);
}

BlkSegment decode_segment(std::span<const std::byte, kSegmentBytes> bytes) {
  return segment_of(copy_of<blkif_request_segment>(bytes));
}

BlkResponse encode_response(BlkAbi abi, const BlkRequest& request, i16 status) {
  // Frontends compare it with what they asked for, which of an indirect request is what it carries.
  const u8 operation = request.operation == BLKIF_OP_INDIRECT ? request.indirect_operation : request.operation;
  if (abi == BlkAbi::k64) return encode<blkif_response>(request.id, operation, status);
  return encode<Response32>(request.id, operation, status);
}

}  // namespace bulkhead::device::xenbus
