// Requests and responses on a disk's ring, as 64-bit and 32-bit x86 frontends lay them out [xen/io/blkif.h], cut into
// one checked form.
#pragma once
#include <array>
#include <optional>
#include <span>
#include <string_view>

#include "base/ints.h"

namespace bulkhead::device::xenbus {

enum class BlkAbi : u8 { k64, k32 };
// By the frontend's "protocol" node; none for an ABI that we do not speak.
std::optional<BlkAbi> blk_abi(std::string_view protocol);

inline constexpr u32 kMaxEntryBytes = 112;
u32 entry_bytes(BlkAbi abi);

struct BlkSegment {
  u32 reference = 0;
  u8 first_sector = 0, last_sector = 0;  // of the page, both included
};

struct BlkRequest {
  static constexpr unsigned kMaxDirect = 11, kMaxIndirectPages = 8;

  u8 operation = 0;           // BLKIF_OP_*
  u8 indirect_operation = 0;  // of an indirect request
  u8 discard_flags = 0;
  u16 segment_count = 0;  // as the guest says; direct: at most kMaxDirect are in `segments`
  u64 id = 0;
  u64 sector = 0;
  u64 discard_sectors = 0;
  std::array<BlkSegment, kMaxDirect> segments{};
  std::array<u32, kMaxIndirectPages> indirect_pages{};
};

// `entry`: a private copy of a ring entry, entry_bytes(abi).
BlkRequest decode_request(BlkAbi abi, std::span<const std::byte> entry);
// An indirect page's content, a private copy: the same for all ABIs.
inline constexpr u32 kSegmentBytes = 8, kSegmentsPerPage = kPageSize / kSegmentBytes;
BlkSegment decode_segment(std::span<const std::byte, kSegmentBytes> bytes);

struct BlkResponse {
  std::array<std::byte, 16> storage{};
  u32 size = 0;
  std::span<const std::byte> bytes() const { return std::span{storage}.first(size); }
};
BlkResponse encode_response(BlkAbi abi, const BlkRequest& request, i16 status);

}  // namespace bulkhead::device::xenbus
