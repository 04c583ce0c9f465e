// virtio file system device [virtio-1.3 §5.11]. Fidelity: complete but for DAX (shared memory region) and the
// notification queue; one request queue.
// The queues are the core's thread's; what changes them pauses it. A reset does not wait for the file server: what is
// in flight is carried out there, and its reply thrown away.
#pragma once
#include <array>
#include <optional>
#include <string>

#include "device/core/fs/fs_core.h"
#include "device/virtio/device.h"

namespace bulkhead::device::virtio {

class VirtioFs final : public VirtioDevice, private FsSource {
 public:
  static constexpr std::size_t kTagBytes = 36;

  VirtioFs(FsCore& core, std::string tag);  // `core` outlives us; the tag is what a guest mounts
  ~VirtioFs() override;
  u32 type() const override;
  u64 features() const override { return 0; }
  std::span<const u16> queue_sizes() const override { return kQueueSizes; }
  void read_config(u64 offset, std::span<std::byte> out) override;
  void attach(DeviceHost& host, std::span<Queue> queues) override;
  void start(u64 features) override;
  void notify(unsigned) override { core_.kick(); }
  void quiesced(const std::function<void()>& change) override { core_.paused(change); }
  void stop_queue(unsigned index) override;
  void reset() override { started_ = false; }

 private:
  static constexpr unsigned kHigh = 0, kRequests = 1;
  // A guest may send as many pages with one request as its ring is long [linux virtio_fs.c], and we take a MiB.
  static constexpr std::array<u16, 2> kQueueSizes{128, 512};

  struct Pending {
    std::optional<Chain> chain;
    unsigned queue = 0;
  };
  bool next(FsRequest& request) override;
  std::span<const IoBuffer> reply_space(unsigned lane, u32 bytes) override;
  void done(unsigned lane, u32 bytes) override;
  void signal() override;
  std::optional<Chain> pop(unsigned queue);
  void refuse(unsigned queue, Chain chain, u64 unique);

  FsCore& core_;
  const std::string tag_;
  DeviceHost* host_ = nullptr;
  std::span<Queue> queues_;
  bool started_ = false;
  std::array<bool, 2> used_{};  // something was pushed since the last signal
  std::array<Pending, FsCore::kMaxLanes> lanes_;
};

}  // namespace bulkhead::device::virtio
