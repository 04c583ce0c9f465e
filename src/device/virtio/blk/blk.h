// virtio block device [virtio-1.3 §5.2].
// Fidelity: read, write, flush, discard, write-zeroes, get-id; several queues; write cache that the driver may turn off
// and on. Missing: lifetime, secure erase, zones.
// Threads: registers on vCPUs; rings and requests of all queues on the disk's thread, so that a vCPU never waits for a
// disk, and a driver that does nonsense with its ring delays nobody else's disk. Requests run in parallel, as many as
// the rings hold. A reset waits for those in flight.
// Data goes between guest memory and disk without a copy of our own.
#pragma once
#include <atomic>
#include <vector>

#include "device/core/block/block_service.h"
#include "device/virtio/device.h"

namespace bulkhead::device::virtio {

class VirtioBlk final : public VirtioDevice {
 public:
  static constexpr u16 kQueueSize = 256;
  static constexpr u32 kMaxDataSegments = kQueueSize - 2;  // beside header and status
  static constexpr unsigned kMaxQueues = BlockCore::kMaxQueues;

  // `core` outlives us. `queues` 1 to kMaxQueues: one per vCPU is what drivers like.
  explicit VirtioBlk(BlockCore& core, unsigned queues = 1);

  u32 type() const override;
  u64 features() const override;
  std::span<const u16> queue_sizes() const override { return queue_sizes_; }
  void read_config(u64 offset, std::span<std::byte> out) override;
  void write_config(u64 offset, std::span<const std::byte> in) override;
  void attach(DeviceHost& host, std::span<Queue> queues) override;
  void start(u64 features) override;
  void notify(unsigned index) override;
  void abandon() override { service_.abandon_waiting(); }
  void quiesced(const std::function<void()>& change) override { service_.paused(change); }
  void stop_queue(unsigned) override {}  // nothing is held once nothing is in flight
  void reset() override;

 private:
  void serve(unsigned index);
  void signal(unsigned index);
  static block::Detached run(VirtioBlk* self, unsigned index, Chain chain);
  bool write_through() const { return !can_flush_ || (can_set_cache_ && !write_back_); }

  BlockCore& core_;
  std::vector<u16> queue_sizes_;
  const u64 features_;
  DeviceHost* host_ = nullptr;
  std::span<Queue> queues_;
  std::atomic<bool> write_back_;                                      // as the driver set it
  bool started_ = false, can_flush_ = false, can_set_cache_ = false;  // changed only while the service is paused
  BlockService service_;                                              // last: it ends first
};

}  // namespace bulkhead::device::virtio
