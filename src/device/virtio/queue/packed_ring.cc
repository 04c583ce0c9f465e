#include "device/virtio/queue/packed_ring.h"

#include <utility>

#include "base/bits.h"
#include "spec/virtio.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio;

namespace {
constexpr u64 kIdAt = 12, kFlagsAt = 14;              // in a descriptor
constexpr u64 kEventOffsetAt = 0, kEventFlagsAt = 2;  // in an event suppression structure
constexpr u64 kEventBytes = 4;

// Available: the AVAIL bit equals the driver's wrap counter and USED does not [virtio-1.3 §2.8.1].
bool is_available(u16 flags, bool wrap) { return bool(flags & kDescAvail) == wrap && bool(flags & kDescUsed) != wrap; }
}  // namespace

bool PackedRing::attach(const GuestMemory& memory, const QueueConfig& config) {
  *this = {};
  if (config.size == 0 || config.size > kMaxQueueSize) return false;
  if (!is_aligned(config.descriptors.value, 16) || !is_aligned(config.driver.value, 4) ||
      !is_aligned(config.device.value, 4))
    return false;
  ring_ = memory.host(config.descriptors, u64{kDescBytes} * config.size);
  driver_event_ = memory.host(config.driver, kEventBytes);
  device_event_ = memory.host(config.device, kEventBytes);
  size_ = static_cast<u16>(config.size);
  indirect_ = config.indirect;
  event_index_ = config.event_index;
  return ring_ != nullptr && driver_event_ != nullptr && device_event_ != nullptr;
}

void PackedRing::advance(Position& position, u16 by) const {
  u32 index = u32{position.index} + by;
  if (index >= size_) {
    index -= size_;
    position.wrap = !position.wrap;
  }
  position.index = static_cast<u16>(index);
}

bool PackedRing::has_next() const {
  const u16 flags = load<u16>(ring_ + u64{kDescBytes} * available_.index + kFlagsAt, std::memory_order_seq_cst);
  return is_available(flags, available_.wrap);
}

Found PackedRing::next(ChainBuilder& builder) {
  const u16 head = load<u16>(ring_ + u64{kDescBytes} * available_.index + kFlagsAt, std::memory_order_acquire);
  if (!is_available(head, available_.wrap)) return Found::nothing();
  Position at = available_;
  for (u16 entries = 1; entries <= size_; ++entries) {
    const PackedDescriptor entry = load_packed_descriptor(ring_ + u64{kDescBytes} * at.index);
    if (!is_available(entry.flags, at.wrap)) return Found::wrong(Fault::kNotAvailable);
    advance(at, 1);
    const bool more = entry.flags & kDescNext;
    Fault fault;
    if (entry.flags & kDescIndirect)
      fault = !indirect_ || more ? Fault::kIndirectRefused : builder.add_packed_table(entry.address, entry.length);
    else
      fault = builder.add(entry.address, entry.length, entry.flags & kDescWrite);
    if (fault != Fault::kNone) return Found::wrong(fault);
    if (more) continue;
    available_ = at;
    return {.chain = true, .id = entry.id, .ring_entries = entries};  // the last one's ID counts [virtio-1.3 §2.8.6]
  }
  return Found::wrong(Fault::kLoop);
}

void PackedRing::complete(u16 id, u16 ring_entries, u32 written) {
  std::byte* const entry = ring_ + u64{kDescBytes} * used_.index;
  store<u32>(entry + 8, written);
  store<u16>(entry + kIdAt, id);
  const auto flags = static_cast<u16>((used_.wrap ? kDescAvail | kDescUsed : 0) | (written != 0 ? kDescWrite : 0));
  if (together_ && first_flags_at_ == nullptr) {
    first_flags_at_ = entry + kFlagsAt;
    first_flags_ = flags;
  } else {
    store<u16>(entry + kFlagsAt, flags, std::memory_order_seq_cst);  // why seq_cst: see SplitRing::complete
  }
  advance(used_, ring_entries);
  unsignalled_ += ring_entries;
}

void PackedRing::end_together() {
  together_ = false;
  if (first_flags_at_ != nullptr)
    store<u16>(std::exchange(first_flags_at_, nullptr), first_flags_, std::memory_order_seq_cst);
}

bool PackedRing::interrupt_wanted() {
  const u32 fresh = std::exchange(unsignalled_, 0);
  if (fresh == 0) return false;
  const u16 flags = load<u16>(driver_event_ + kEventFlagsAt, std::memory_order_seq_cst);
  if (flags == kEventDisable) return false;
  if (flags != kEventDescriptor || !event_index_) return true;
  // Wanted when the ring entry it names is among the fresh ones; `back` is how far behind us that one lies.
  const u16 event = load<u16>(driver_event_ + kEventOffsetAt);
  const bool same_lap = bool(event >> 15) == used_.wrap;
  const int back = int{used_.index} - (event & 0x7fff) + (same_lap ? 0 : size_);
  return fresh >= size_ || (back >= 1 && static_cast<u32>(back) <= fresh);
}

void PackedRing::disable_notifications() { store<u16>(device_event_ + kEventFlagsAt, kEventDisable); }

bool PackedRing::enable_notifications() {
  if (event_index_) {
    store<u16>(device_event_ + kEventOffsetAt, static_cast<u16>(available_.index | (available_.wrap ? 0x8000 : 0)));
    store<u16>(device_event_ + kEventFlagsAt, kEventDescriptor, std::memory_order_seq_cst);
  } else {
    store<u16>(device_event_ + kEventFlagsAt, kEventEnable, std::memory_order_seq_cst);
  }
  return has_next();
}

}  // namespace bulkhead::device::virtio
