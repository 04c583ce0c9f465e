// What passes through a node: counts, bytes, latencies, depth. Read from any thread.
#pragma once
#include "block/status.h"
#include "telemetry/counter.h"

namespace bulkhead::block {

enum class RequestKind : u8 { kRead, kWrite, kFlush, kDiscard, kWriteZeroes, kCount };

class NodeStats {
 public:
  enum CounterIndex : u8 {
    kReads,
    kWrites,
    kFlushes,
    kDiscards,
    kWriteZeroes,
    kBytesRead,
    kBytesWritten,
    kBytesDiscarded,
    kBytesZeroed,
    kErrors,
    kBounced,  // requests that went through memory of ours, for the host wants alignment
  };
  telemetry::CounterSet counters{{"reads", "writes", "flushes", "discards", "write_zeroes", "bytes_read",
                                  "bytes_written", "bytes_discarded", "bytes_zeroed", "errors", "bounced"}};

  u64 depth() const { return depth_.load(std::memory_order_relaxed); }  // requests in flight now
  u64 deepest() const { return deepest_.load(std::memory_order_relaxed); }
  const telemetry::Histogram& latency(RequestKind kind) const { return latency_[static_cast<u8>(kind)]; }  // in ns

  // By the executor's thread.
  void begin() {
    const u64 depth = depth_.load(std::memory_order_relaxed) + 1;
    depth_.store(depth, std::memory_order_relaxed);
    if (depth > deepest_.load(std::memory_order_relaxed)) deepest_.store(depth, std::memory_order_relaxed);
  }
  void end(RequestKind kind, u64 bytes, IoStatus status, u64 nanoseconds) {
    depth_.store(depth_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
    const auto index = static_cast<u8>(kind);
    latency_[index].record(nanoseconds);
    counters[index].add();
    constexpr u8 kBytes[] = {kBytesRead, kBytesWritten, kFlushes, kBytesDiscarded, kBytesZeroed};
    if (status != IoStatus::kOk)
      counters[kErrors].add();
    else if (kind != RequestKind::kFlush)
      counters[kBytes[index]].add(bytes);
  }

 private:
  std::atomic<u64> depth_{0}, deepest_{0};
  telemetry::Histogram latency_[static_cast<u8>(RequestKind::kCount)];
};

}  // namespace bulkhead::block
