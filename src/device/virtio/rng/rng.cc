#include "device/virtio/rng/rng.h"

#include <algorithm>

#include "spec/virtio.h"

namespace bulkhead::device::virtio {

u32 VirtioRng::type() const { return spec::virtio::kTypeEntropy; }

void VirtioRng::attach(DeviceHost& host, std::span<Queue> queues) {
  host_ = &host;
  queue_ = &queues[0];
}

void VirtioRng::start(u64) { notify(0); }

u32 VirtioRng::fill(const Chain& chain) {
  u64 done = 0;
  for (const IoBuffer& buffer : chain.writable()) {
    const u64 count = std::min(buffer.length, kMaxBytes - done);
    source_.fill({buffer.data, count});
    done += count;
  }
  return static_cast<u32>(done);
}

void VirtioRng::notify(unsigned) {
  do {
    queue_->disable_notifications();
    while (std::optional<Chain> chain = queue_->pop()) {
      // The driver must put nothing device-readable here [virtio-1.3 §5.4.6.1]; we have no use for it and go on.
      const u32 written = fill(*chain);
      queue_->push(std::move(*chain), written);
    }
  } while (queue_->enable_notifications());
  if (queue_->interrupt_wanted()) host_->interrupt_used();
}

}  // namespace bulkhead::device::virtio
