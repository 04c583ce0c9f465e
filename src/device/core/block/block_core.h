// The disk device without a transport: sector requests against a block::Disk.
// Threads: requests are coroutines on the disk's executor; geometry and counters from any.
#pragma once
#include <array>
#include <string>

#include "block/disk/disk.h"
#include "telemetry/counter.h"

namespace bulkhead::device {

// What guests are told about the disk besides its size.
struct BlockGeometry {
  u32 logical_block_bytes = 512;    // a power of two from 512 to 4096
  u32 physical_block_bytes = 4096;  // the same, not smaller than logical
  u32 optimal_io_bytes = 1_MiB;     // a hint
};

// One queue of a device. Written by the disk's thread, read from any.
class BlockQueueStats {
 public:
  u64 depth() const { return depth_.load(std::memory_order_relaxed); }  // requests in flight now
  u64 deepest() const { return deepest_.load(std::memory_order_relaxed); }
  const telemetry::Histogram& latency() const { return latency_; }  // from ring to ring, in nanoseconds

  void begin() {
    const u64 depth = depth_.load(std::memory_order_relaxed) + 1;
    depth_.store(depth, std::memory_order_relaxed);
    if (depth > deepest()) deepest_.store(depth, std::memory_order_relaxed);
  }
  void end(u64 nanoseconds) {
    depth_.store(depth_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
    latency_.record(nanoseconds);
  }

 private:
  std::atomic<u64> depth_{0}, deepest_{0};
  telemetry::Histogram latency_;
};

class BlockCore {
 public:
  static constexpr unsigned kMaxQueues = 8;
  // One request to discard or zero is no longer than this, so that none keeps others for long.
  static constexpr u32 kMaxRangeSectors = 256_MiB / block::kSectorSize;
  using Answer = block::Task<block::IoStatus>;

  explicit BlockCore(block::Disk& disk, BlockGeometry geometry = {}) : disk_{disk}, geometry_{geometry} {}

  block::Disk& disk() const { return disk_; }
  u64 sectors() const { return disk_.size_bytes() / block::kSectorSize; }
  bool read_only() const { return disk_.read_only(); }
  bool supports_discard() const { return disk_.supports_discard(); }
  const std::string& serial() const { return disk_.serial(); }
  const BlockGeometry& geometry() const { return geometry_; }
  bool write_back() const { return disk_.cache() != block::CacheMode::kWriteThrough; }  // what a flush is for

  // The lengths' sum must be whole sectors and lie within the disk, else kOutOfRange. `buffers` stay until the end.
  Answer read(u64 sector, block::Buffers buffers);
  Answer write(u64 sector, block::Buffers buffers, block::WriteFlags flags = block::WriteFlags::kNone);
  Answer flush();
  // `length` in sectors; kOutOfRange beyond the disk's end or kMaxRangeSectors.
  Answer discard(u64 sector, u32 length);
  Answer write_zeroes(u64 sector, u32 length, block::WriteFlags flags);

  enum CounterIndex : u8 { kReads, kWrites, kFlushes, kDiscards, kZeroes, kBytesRead, kBytesWritten, kErrors };
  const telemetry::CounterSet& counters() const { return counters_; }
  BlockQueueStats& queue(unsigned index) { return queues_[index]; }  // < kMaxQueues
  const BlockQueueStats& queue(unsigned index) const { return queues_[index]; }

 private:
  block::IoStatus count(CounterIndex kind, block::IoStatus status);
  bool transfer_fits(u64 sector, block::Buffers buffers, u64& bytes) const;
  block::IoStatus range_status(u64 sector, u32 length) const;

  block::Disk& disk_;
  BlockGeometry geometry_;
  telemetry::CounterSet counters_{
      {"reads", "writes", "flushes", "discards", "write_zeroes", "bytes_read", "bytes_written", "errors"}};
  std::array<BlockQueueStats, kMaxQueues> queues_;
};

}  // namespace bulkhead::device
