// The device's side of a virtqueue, split or packed [virtio-1.3 §2.6 to §2.8].
// Fidelity: indirect descriptors, event index and notification suppression are complete. Missing: in-order use,
// notification data, ring reset (features we do not offer).
// Threads: one at a time, and the device arranges that (see VirtioDevice). A fault stops the queue until it is
// disabled, is counted, and reaches the FaultSink, which makes the device need a reset.
#pragma once
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "device/virtio/queue/chain.h"
#include "device/virtio/queue/packed_ring.h"
#include "device/virtio/queue/split_ring.h"

namespace bulkhead::device::virtio {

class Queue {
 public:
  // `memory` and `faults` outlive the queue.
  Queue(const GuestMemory& memory, FaultSink& faults, u32 max_size, ChainLimits limits = {});
  Queue(Queue&&) noexcept = default;

  u32 max_size() const { return max_size_; }
  u32 size() const { return size_; }  // as enabled
  // For the transport. enable() refuses (false, and a fault) what cannot be; the rings start from zero.
  bool enable(const QueueConfig& config);
  void disable();
  const QueueConfig& config() const { return config_; }  // as enabled
  bool enabled() const { return !std::holds_alternative<std::monostate>(ring_); }

  // The next chain; none when the ring is empty, the queue is not enabled, or there was a fault.
  std::optional<Chain> pop();
  // Gives a chain back: `written` bytes from the start of its writable side were written.
  void push(Chain chain, u32 written);
  // What is pushed between the two becomes visible to the driver at once, as one packet's buffers must.
  void begin_together();
  void end_together();
  // Gives a chain back without telling the driver, because the queue is being reset.
  void drop(Chain chain);
  // Ask once after a batch of push().
  bool interrupt_wanted();
  void disable_notifications();
  // True when something is available already: then no notification may come for it, so look again.
  [[nodiscard]] bool enable_notifications();
  // A request whose contents are wrong beyond a status byte.
  void fault(Fault fault);
  bool broken() const { return broken_; }

 private:
  void recycle(Chain& chain);
  FaultSink* faults_;
  u32 max_size_;
  ChainBuilder builder_;
  std::variant<std::monostate, SplitRing, PackedRing> ring_;
  std::vector<std::unique_ptr<ChainBuffers>> spare_;
  QueueConfig config_;
  u32 size_ = 0, in_flight_ = 0;
  bool broken_ = false;
};

}  // namespace bulkhead::device::virtio
