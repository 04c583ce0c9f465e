// virtio block device [virtio-1.3 §5.2].
// Fidelity: read, write, flush, discard, write-zeroes, get-id; several queues. Missing: configurable write cache (the
// cache is write-back; without F_FLUSH every write is flushed), lifetime, secure erase, zones.
// Threads: registers on vCPUs; requests of all queues on one thread of the device, so that a vCPU never waits for a
// disk. A reset waits for the request in progress; those not begun are left to the driver, which forgets them.
// Data goes between guest memory and disk without a copy of our own.
#pragma once
#include <vector>

#include "device/core/block/block_core.h"
#include "device/core/work/worker.h"
#include "device/virtio/device.h"

namespace bulkhead::device::virtio {

class VirtioBlk final : public VirtioDevice {
 public:
  static constexpr u16 kQueueSize = 256;
  static constexpr u32 kMaxDataSegments = kQueueSize - 2;  // beside header and status
  static constexpr unsigned kMaxQueues = 8;

  // `core` outlives us. `queues` 1 to kMaxQueues: one per vCPU is what drivers like.
  explicit VirtioBlk(BlockCore& core, unsigned queues = 1);

  u32 type() const override;
  u64 features() const override;
  std::span<const u16> queue_sizes() const override { return queue_sizes_; }
  void read_config(u64 offset, std::span<std::byte> out) override;
  void attach(DeviceHost& host, std::span<Queue> queues) override;
  void start(u64 features) override;
  void notify(unsigned index) override;
  void quiesced(const std::function<void()>& change) override { worker_.paused(change); }
  void stop_queue(unsigned) override {}  // no chain is held between requests
  void reset() override;

 private:
  void work(u64 items);
  void serve(unsigned index);
  bool run_next(Queue& queue);
  void signal(Queue& queue);

  BlockCore& core_;
  std::vector<u16> queue_sizes_;
  const u64 features_;
  DeviceHost* host_ = nullptr;
  std::span<Queue> queues_;
  bool started_ = false, write_through_ = false;  // changed only while the worker is paused
  Worker worker_;                                 // last: its thread must end first
};

}  // namespace bulkhead::device::virtio
