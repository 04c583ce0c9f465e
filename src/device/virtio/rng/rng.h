// virtio entropy device [virtio-1.3 §5.4]. Fidelity: complete.
// Runs on the vCPU thread that notifies, under the bus lock; takes as long as getrandom needs for kMaxBytes a buffer.
#pragma once
#include <array>

#include "device/console_backend.h"
#include "device/virtio/device.h"

namespace bulkhead::device::virtio {

class VirtioRng final : public VirtioDevice {
 public:
  static constexpr u64 kMaxBytes = 64_KiB;  // for one chain; drivers ask for some dozens

  explicit VirtioRng(EntropySource& source) : source_{source} {}  // `source` outlives us
  u32 type() const override;
  u64 features() const override { return 0; }
  std::span<const u16> queue_sizes() const override { return kQueueSizes; }
  void read_config(u64, std::span<std::byte>) override {}
  void attach(DeviceHost& host, std::span<Queue> queues) override;
  void start(u64 features) override;
  void notify(unsigned index) override;
  void quiesced(const std::function<void()>& change) override { change(); }  // all calls come one at a time already
  void stop_queue(unsigned) override {}
  void reset() override {}

 private:
  u32 fill(const Chain& chain);
  static constexpr std::array<u16, 1> kQueueSizes{64};
  EntropySource& source_;
  DeviceHost* host_ = nullptr;
  Queue* queue_ = nullptr;
};

}  // namespace bulkhead::device::virtio
