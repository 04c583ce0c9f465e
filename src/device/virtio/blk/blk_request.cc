#include "device/virtio/blk/blk_request.h"

#include <algorithm>
#include <array>

#include "spec/virtio.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio::blk;
using block::IoStatus;
using block::WriteFlags;

namespace {

u8 status_byte(IoStatus status) {
  switch (status) {
    case IoStatus::kOk:
      return spec::virtio::blk::kOk;
    case IoStatus::kUnsupported:
      return kUnsupp;
    default:
      return kIoErr;
  }
}

IoStatus get_id(const BlockCore& core, const Chain& chain) {
  // Padded with zeroes, without one at the end when it is full [virtio-1.3 §5.2.6.2].
  std::array<std::byte, kIdBytes> id{};
  const std::string serial = core.serial();
  std::transform(serial.begin(), serial.begin() + std::min<std::ptrdiff_t>(std::ssize(serial), kIdBytes), id.begin(),
                 [](char c) { return static_cast<std::byte>(c); });
  return chain.write(id) == kIdBytes ? IoStatus::kOk : IoStatus::kIoError;
}

// Every segment is judged before the first one is carried out.
IoStatus check_segments(u32 type, std::span<const RangeSegment> segments) {
  for (const RangeSegment& segment : segments) {
    const u32 allowed = type == kWriteZeroes ? kZeroesUnmap : 0;
    if (segment.flags & ~allowed) return IoStatus::kUnsupported;
    if (segment.num_sectors > BlockCore::kMaxRangeSectors) return IoStatus::kOutOfRange;
  }
  return IoStatus::kOk;
}

block::Task<IoStatus> change_ranges(BlockCore& core, u32 type, Chain& chain, WriteFlags durability) {
  std::array<RangeSegment, kMaxRangeSegments> storage;
  const u64 bytes = chain.readable_bytes();
  if (bytes == 0 || bytes % sizeof(RangeSegment) != 0 || bytes > sizeof storage) co_return IoStatus::kIoError;
  const std::span segments = std::span{storage}.first(bytes / sizeof(RangeSegment));
  BH_ASSERT(chain.take(std::as_writable_bytes(segments)));
  IoStatus status = check_segments(type, segments);
  for (const RangeSegment& segment : segments) {
    if (status != IoStatus::kOk) break;
    if (type == kDiscard) {
      status = co_await core.discard(segment.sector, segment.num_sectors);
    } else {
      const WriteFlags unmap = segment.flags & kZeroesUnmap ? WriteFlags::kMayUnmap : WriteFlags::kNone;
      status = co_await core.write_zeroes(segment.sector, segment.num_sectors, unmap | durability);
    }
  }
  co_return status;
}

block::Task<IoStatus> at_once(IoStatus status) { co_return status; }

block::Task<IoStatus> run(BlockCore& core, const RequestHeader& header, Chain& chain, WriteFlags durability) {
  switch (header.type) {
    case kIn:
      return core.read(header.sector, chain.writable());
    case kOut:
      return core.write(header.sector, chain.readable(), durability);
    case kFlush:
      return core.flush();
    case kGetId:
      return at_once(get_id(core, chain));
    case kDiscard:
      if (!core.supports_discard()) return at_once(IoStatus::kUnsupported);
      return change_ranges(core, kDiscard, chain, durability);
    case kWriteZeroes:
      return change_ranges(core, kWriteZeroes, chain, durability);
    default:
      return at_once(IoStatus::kUnsupported);
  }
}

}  // namespace

block::Task<std::optional<u32>> run_blk_request(BlockCore& core, Chain& chain, bool write_through) {
  RequestHeader header;
  if (chain.readable_bytes() < sizeof header || chain.writable_bytes() == 0) co_return std::nullopt;
  BH_ASSERT(chain.take(std::as_writable_bytes(std::span{&header, 1})));
  std::byte* const status_at = chain.take_last_writable();
  const u64 data = chain.writable_bytes();
  const IoStatus status = co_await run(core, header, chain, write_through ? WriteFlags::kFua : WriteFlags::kNone);
  *status_at = static_cast<std::byte>(status_byte(status));
  // The length counts from the start of the writable side. After a failure nothing is promised about the data, and so
  // the status byte behind it cannot be counted either [virtio-1.3 §2.7.8.2].
  if (status == IoStatus::kOk) co_return static_cast<u32>(data + 1);
  co_return data == 0 ? 1u : 0u;
}

}  // namespace bulkhead::device::virtio
