// The driver's side of a virtqueue, split or packed: plays the guest in tests [virtio-1.3 §2.7, §2.8].
// It shares no code with the device's side but the loads and stores. One thread at a time.
#pragma once
#include <optional>
#include <span>
#include <vector>

#include "device/virtio/queue/split_ring.h"
#include "memory/guest_memory.h"

namespace bulkhead::test {

struct DriverBuffer {
  Gpa at;
  u32 length = 0;
  bool device_writes = false;
};

struct RingOptions {
  bool packed = false, indirect = false, event_index = false;
};

class VirtqueueDriver {
 public:
  struct Used {
    u16 token;
    u32 length;
  };
  static constexpr u16 kTableEntries = 32;  // of each indirect table

  // Rings and tables go to [area, area + bytes_needed(size)), which is page aligned and RAM, and are zeroed.
  VirtqueueDriver(const GuestMemory& memory, Gpa area, u16 size, RingOptions options);
  static u64 bytes_needed(u16 size);
  device::virtio::QueueConfig config() const;

  // Makes a chain available. The token comes back from poll(); none when the ring is full.
  std::optional<u16> add(std::span<const DriverBuffer> buffers);
  std::optional<u16> add(std::initializer_list<DriverBuffer> buffers) { return add(std::span{buffers}); }
  std::optional<Used> poll();
  bool kick_wanted();  // about everything added since it was last asked
  void suppress_interrupts();
  void request_interrupt(u16 after = 0);  // after that many further completions (0: the next), with the event index
  u16 in_flight() const { return in_flight_; }

  // For malice: where things are in guest memory.
  Gpa descriptor(u16 index) const { return config_.descriptors + 16 * index; }
  Gpa available(u64 offset = 0) const { return config_.driver + offset; }
  Gpa used(u64 offset = 0) const { return config_.device + offset; }
  Gpa table(u16 index) const { return tables_ + u64{16} * kTableEntries * index; }
  void put_descriptor(Gpa at, u64 address, u32 length, u16 third, u16 fourth);  // split: flags, next; packed: id, flags
  // Publishes `head` (split) or marks `count` ring entries from the next one on, with these extra flags (packed).
  void publish_raw(u16 head);

 private:
  struct Position {
    u16 index = 0;
    bool wrap = true;
  };
  std::optional<u16> add_split(std::span<const DriverBuffer> buffers);
  std::optional<u16> add_packed(std::span<const DriverBuffer> buffers);
  std::optional<Used> poll_split();
  std::optional<Used> poll_packed();
  bool kick_wanted_packed(u32 fresh);
  void advance(Position& position, u32 by) const;
  std::byte* host(Gpa at) const { return memory_.host(at, 1); }

  const GuestMemory& memory_;
  device::virtio::QueueConfig config_;
  Gpa tables_;
  u16 size_;
  std::vector<u16> free_;                // split: descriptors; packed: buffer IDs
  std::vector<u16> lengths_;             // ring entries of the chain with this token
  std::vector<std::vector<u16>> taken_;  // split: descriptors of the chain with this head
  u16 free_entries_, in_flight_ = 0;
  u16 next_available_ = 0, last_used_ = 0;  // split
  Position available_, used_;               // packed
  u32 unkicked_ = 0;                        // split: chains, packed: ring entries
};

}  // namespace bulkhead::test
