#include "device/core/block/block_core.h"

#include "base/bits.h"
#include "base/clock.h"

namespace bulkhead::device {

using block::IoBuffer;
using block::IoStatus;
using block::kSectorSize;

template <class Io>
IoStatus BlockCore::timed(CounterIndex kind, Io io) {
  const HostClock clock;
  const Nanoseconds begin = clock.now();
  const IoStatus status = io();
  latency_.record(clock.now() - begin);
  counters_[kind].add();
  if (status != IoStatus::kOk) counters_[kErrors].add();
  return status;
}

bool BlockCore::transfer_fits(u64 sector, std::span<const IoBuffer> buffers, u64& bytes) const {
  bytes = 0;
  for (const IoBuffer& buffer : buffers) {
    if (buffer.length > disk_.size_bytes() - bytes) return false;
    bytes += buffer.length;
  }
  return is_aligned(bytes, kSectorSize) && range_within(sector, bytes / kSectorSize, sectors());
}

IoStatus BlockCore::read(u64 sector, std::span<const IoBuffer> buffers) {
  return timed(kReads, [&] {
    u64 bytes;
    if (!transfer_fits(sector, buffers, bytes)) return IoStatus::kOutOfRange;
    counters_[kBytesRead].add(bytes);
    return disk_.read(sector * kSectorSize, buffers);
  });
}

IoStatus BlockCore::write(u64 sector, std::span<const IoBuffer> buffers) {
  return timed(kWrites, [&] {
    u64 bytes;
    if (read_only()) return IoStatus::kReadOnly;
    if (!transfer_fits(sector, buffers, bytes)) return IoStatus::kOutOfRange;
    counters_[kBytesWritten].add(bytes);
    return disk_.write(sector * kSectorSize, buffers);
  });
}

IoStatus BlockCore::flush() {
  return timed(kFlushes, [&] { return disk_.flush(); });
}

IoStatus BlockCore::range_status(u64 sector, u32 count) const {
  if (read_only()) return IoStatus::kReadOnly;
  if (count > kMaxRangeSectors || !range_within(sector, count, sectors())) return IoStatus::kOutOfRange;
  return IoStatus::kOk;
}

IoStatus BlockCore::discard(u64 sector, u32 count) {
  return timed(kDiscards, [&] {
    const IoStatus status = range_status(sector, count);
    return status == IoStatus::kOk ? disk_.discard(sector * kSectorSize, u64{count} * kSectorSize) : status;
  });
}

IoStatus BlockCore::write_zeroes(u64 sector, u32 count, bool may_unmap) {
  return timed(kZeroes, [&] {
    const IoStatus status = range_status(sector, count);
    if (status != IoStatus::kOk) return status;
    return disk_.write_zeroes(sector * kSectorSize, u64{count} * kSectorSize, may_unmap);
  });
}

}  // namespace bulkhead::device
