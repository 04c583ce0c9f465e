// The device's side of a split virtqueue [virtio-1.3 §2.7]. Used by Queue only.
#pragma once
#include "base/ints.h"
#include "device/virtio/queue/chain_builder.h"

namespace bulkhead::device::virtio {

// Where the rings are, as the driver said, and what was negotiated.
struct QueueConfig {
  u32 size = 0;
  Gpa descriptors{}, driver{},
      device{};  // split: table, available ring, used ring; packed: ring and the two event areas
  bool packed = false, indirect = false, event_index = false;
};

// What a ring found at its next position.
struct Found {
  Fault fault = Fault::kNone;
  bool chain = false;  // false, without a fault: the ring is empty
  u16 id = 0, ring_entries = 0;
  static Found nothing() { return {}; }
  static Found wrong(Fault fault) { return {.fault = fault}; }
};

class SplitRing {
 public:
  // False when the rings are not aligned, not RAM or of a size that cannot be.
  bool attach(const GuestMemory& memory, const QueueConfig& config);
  Found next(ChainBuilder& builder);
  void complete(u16 id, u16 ring_entries, u32 written);
  // The driver sees all completions between the two at once.
  void begin_together() { together_ = true; }
  void end_together();
  bool interrupt_wanted();  // about all completions since it was last asked
  void disable_notifications();
  bool enable_notifications();  // true: something is available already
  bool has_next() const;

 private:
  Fault walk(u16 head, ChainBuilder& builder) const;
  std::byte *table_ = nullptr, *available_ = nullptr, *used_ = nullptr;
  u16 size_ = 0;
  bool indirect_ = false, event_index_ = false, together_ = false;
  u16 next_available_ = 0, next_used_ = 0;  // free-running
  u32 unsignalled_ = 0;                     // completions since interrupt_wanted()
};

}  // namespace bulkhead::device::virtio
