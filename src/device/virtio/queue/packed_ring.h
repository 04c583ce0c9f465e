// The device's side of a packed virtqueue [virtio-1.3 §2.8]. Used by Queue only.
#pragma once
#include "device/virtio/queue/split_ring.h"

namespace bulkhead::device::virtio {

class PackedRing {
 public:
  bool attach(const GuestMemory& memory, const QueueConfig& config);
  Found next(ChainBuilder& builder);
  void complete(u16 id, u16 ring_entries, u32 written);
  void begin_together() { together_ = true; }
  void end_together();
  bool interrupt_wanted();
  void disable_notifications();
  bool enable_notifications();
  bool has_next() const;

 private:
  struct Position {
    u16 index = 0;
    bool wrap = true;  // the wrap counter [virtio-1.3 §2.8.1]
  };
  void advance(Position& position, u16 by) const;
  std::byte *ring_ = nullptr, *driver_event_ = nullptr, *device_event_ = nullptr;
  u16 size_ = 0;
  bool indirect_ = false, event_index_ = false;
  bool together_ = false;
  std::byte* first_flags_at_ = nullptr;  // of those together: written last, for the driver looks at it first
  u16 first_flags_ = 0;
  Position available_, used_;
  u32 unsignalled_ = 0;  // ring entries completed since interrupt_wanted()
};

}  // namespace bulkhead::device::virtio
