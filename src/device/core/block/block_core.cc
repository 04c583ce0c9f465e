#include "device/core/block/block_core.h"

#include "base/bits.h"

namespace bulkhead::device {

using block::Buffers;
using block::IoBuffer;
using block::IoStatus;
using block::kSectorSize;

IoStatus BlockCore::count(CounterIndex kind, IoStatus status) {
  counters_[kind].add();
  if (status != IoStatus::kOk) counters_[kErrors].add();
  return status;
}

bool BlockCore::transfer_fits(u64 sector, Buffers buffers, u64& bytes) const {
  bytes = 0;
  for (const IoBuffer& buffer : buffers) {
    if (buffer.length > disk_.size_bytes() - bytes) return false;
    bytes += buffer.length;
  }
  return is_aligned(bytes, kSectorSize) && range_within(sector, bytes / kSectorSize, sectors());
}

BlockCore::Answer BlockCore::read(u64 sector, Buffers buffers) {
  u64 bytes;
  if (!transfer_fits(sector, buffers, bytes)) co_return count(kReads, IoStatus::kOutOfRange);
  const IoStatus status = co_await disk_.read(sector * kSectorSize, buffers);
  if (status == IoStatus::kOk) counters_[kBytesRead].add(bytes);
  co_return count(kReads, status);
}

BlockCore::Answer BlockCore::write(u64 sector, Buffers buffers, block::WriteFlags flags) {
  u64 bytes;
  if (read_only()) co_return count(kWrites, IoStatus::kReadOnly);
  if (!transfer_fits(sector, buffers, bytes)) co_return count(kWrites, IoStatus::kOutOfRange);
  const IoStatus status = co_await disk_.write(sector * kSectorSize, buffers, flags);
  if (status == IoStatus::kOk) counters_[kBytesWritten].add(bytes);
  co_return count(kWrites, status);
}

BlockCore::Answer BlockCore::flush() {
  const IoStatus status = co_await disk_.flush();
  co_return count(kFlushes, status);
}

IoStatus BlockCore::range_status(u64 sector, u32 length) const {
  if (read_only()) return IoStatus::kReadOnly;
  if (length > kMaxRangeSectors || !range_within(sector, length, sectors())) return IoStatus::kOutOfRange;
  return IoStatus::kOk;
}

BlockCore::Answer BlockCore::discard(u64 sector, u32 length) {
  IoStatus status = range_status(sector, length);
  if (status == IoStatus::kOk) status = co_await disk_.discard(sector * kSectorSize, u64{length} * kSectorSize);
  co_return count(kDiscards, status);
}

BlockCore::Answer BlockCore::write_zeroes(u64 sector, u32 length, block::WriteFlags flags) {
  IoStatus status = range_status(sector, length);
  if (status == IoStatus::kOk)
    status = co_await disk_.write_zeroes(sector * kSectorSize, u64{length} * kSectorSize, flags);
  co_return count(kZeroes, status);
}

}  // namespace bulkhead::device
