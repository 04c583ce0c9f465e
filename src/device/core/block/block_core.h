// The disk device without a transport: sector requests against a block::Disk.
// Threads: requests from one I/O thread at a time, they block as long as the disk does; geometry and counters from any.
#pragma once
#include <span>
#include <string>

#include "block/disk.h"
#include "telemetry/counter.h"

namespace bulkhead::device {

// What guests are told about the disk besides its size.
struct BlockGeometry {
  u32 logical_block_bytes = 512;    // a power of two from 512 to 4096
  u32 physical_block_bytes = 4096;  // the same, not smaller than logical
  u32 optimal_io_bytes = 1_MiB;     // a hint
};

class BlockCore {
 public:
  // One request to discard or zero is no longer than this, so that none keeps the thread for long.
  static constexpr u32 kMaxRangeSectors = 256_MiB / block::kSectorSize;

  explicit BlockCore(block::Disk& disk, BlockGeometry geometry = {}) : disk_{disk}, geometry_{geometry} {}

  u64 sectors() const { return disk_.size_bytes() / block::kSectorSize; }
  bool read_only() const { return disk_.read_only(); }
  bool supports_discard() const { return disk_.supports_discard(); }
  std::string serial() const { return disk_.serial(); }
  const BlockGeometry& geometry() const { return geometry_; }

  // The lengths' sum must be whole sectors and lie within the disk, else kOutOfRange.
  block::IoStatus read(u64 sector, std::span<const block::IoBuffer> buffers);
  block::IoStatus write(u64 sector, std::span<const block::IoBuffer> buffers);
  block::IoStatus flush();
  // kOutOfRange beyond the disk's end or kMaxRangeSectors.
  block::IoStatus discard(u64 sector, u32 count);
  block::IoStatus write_zeroes(u64 sector, u32 count, bool may_unmap);

  enum CounterIndex : u8 { kReads, kWrites, kFlushes, kDiscards, kZeroes, kBytesRead, kBytesWritten, kErrors };
  const telemetry::CounterSet& counters() const { return counters_; }
  const telemetry::Histogram& latency() const { return latency_; }  // of all requests, in nanoseconds

 private:
  template <class Io>
  block::IoStatus timed(CounterIndex kind, Io io);
  bool transfer_fits(u64 sector, std::span<const block::IoBuffer> buffers, u64& bytes) const;
  block::IoStatus range_status(u64 sector, u32 count) const;

  block::Disk& disk_;
  BlockGeometry geometry_;
  telemetry::CounterSet counters_{
      {"reads", "writes", "flushes", "discards", "write_zeroes", "bytes_read", "bytes_written", "errors"}};
  telemetry::Histogram latency_;
};

}  // namespace bulkhead::device
