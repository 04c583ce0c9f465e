#include "device/virtio/queue/split_ring.h"

#include <bit>
#include <utility>

#include "base/bits.h"
#include "spec/virtio.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio;

namespace {
// Both rings: flags, idx, entries, then the other side's event index [virtio-1.3 §2.7.6, §2.7.8].
constexpr u64 kFlagsAt = 0, kIndexAt = 2, kEntriesAt = 4;
constexpr u64 kAvailableEntry = 2, kUsedEntry = 8;
}  // namespace

bool SplitRing::attach(const GuestMemory& memory, const QueueConfig& config) {
  *this = {};
  if (config.size == 0 || config.size > kMaxQueueSize || !std::has_single_bit(config.size)) return false;
  if (!is_aligned(config.descriptors.value, 16) || !is_aligned(config.driver.value, 2) ||
      !is_aligned(config.device.value, 4))
    return false;
  table_ = memory.host(config.descriptors, u64{kDescBytes} * config.size);
  available_ = memory.host(config.driver, kEntriesAt + kAvailableEntry * config.size + 2);
  used_ = memory.host(config.device, kEntriesAt + kUsedEntry * config.size + 2);
  size_ = static_cast<u16>(config.size);
  indirect_ = config.indirect;
  event_index_ = config.event_index;
  return table_ != nullptr && available_ != nullptr && used_ != nullptr;
}

bool SplitRing::has_next() const {
  return load<u16>(available_ + kIndexAt, std::memory_order_seq_cst) != next_available_;
}

Found SplitRing::next(ChainBuilder& builder) {
  const auto ahead = static_cast<u16>(load<u16>(available_ + kIndexAt, std::memory_order_acquire) - next_available_);
  if (ahead == 0) return Found::nothing();
  if (ahead > size_) return Found::wrong(Fault::kIndexAhead);
  const u16 head = load<u16>(available_ + kEntriesAt + kAvailableEntry * (next_available_ & (size_ - 1)));
  if (const Fault fault = walk(head, builder); fault != Fault::kNone) return Found::wrong(fault);
  ++next_available_;
  return {.chain = true, .id = head, .ring_entries = 1};
}

Fault SplitRing::walk(u16 at, ChainBuilder& builder) const {
  for (u32 steps = 0; steps < size_; ++steps) {
    if (at >= size_) return Fault::kBadIndex;
    const Descriptor entry = load_split_descriptor(table_ + u64{kDescBytes} * at);
    if (entry.flags & kDescIndirect) {
      // It may end a chain of ordinary ones, but nothing follows it [virtio-1.3 §2.7.5.3].
      if (!indirect_ || (entry.flags & kDescNext)) return Fault::kIndirectRefused;
      return builder.add_split_table(entry.address, entry.length);
    }
    if (const Fault fault = builder.add(entry.address, entry.length, entry.flags & kDescWrite); fault != Fault::kNone)
      return fault;
    if (!(entry.flags & kDescNext)) return Fault::kNone;
    at = entry.next;
  }
  return Fault::kLoop;
}

void SplitRing::complete(u16 id, u16, u32 written) {
  std::byte* const entry = used_ + kEntriesAt + kUsedEntry * (next_used_ & (size_ - 1));
  store<u32>(entry, id);
  store<u32>(entry + 4, written);
  ++next_used_;
  ++unsignalled_;
  // Sequentially consistent against the driver's event index or flag, which interrupt_wanted() reads next: either we
  // see its wish, or it sees our entry.
  if (!together_) store<u16>(used_ + kIndexAt, next_used_, std::memory_order_seq_cst);
}

void SplitRing::end_together() {
  together_ = false;
  store<u16>(used_ + kIndexAt, next_used_, std::memory_order_seq_cst);
}

bool SplitRing::interrupt_wanted() {
  const u32 fresh = std::exchange(unsignalled_, 0);
  if (fresh == 0) return false;
  if (!event_index_) return !(load<u16>(available_ + kFlagsAt, std::memory_order_seq_cst) & kAvailNoInterrupt);
  // Wanted when the entry numbered used_event is among the fresh ones [virtio-1.3 §2.7.7].
  const u16 event = load<u16>(available_ + kEntriesAt + kAvailableEntry * size_, std::memory_order_seq_cst);
  return static_cast<u16>(next_used_ - event - 1) < fresh;
}

void SplitRing::disable_notifications() {
  // With the event index, the stale one already keeps the driver quiet.
  if (!event_index_) store<u16>(used_ + kFlagsAt, kUsedNoNotify);
}

bool SplitRing::enable_notifications() {
  if (event_index_)
    store<u16>(used_ + kEntriesAt + kUsedEntry * size_, next_available_, std::memory_order_seq_cst);
  else
    store<u16>(used_ + kFlagsAt, 0, std::memory_order_seq_cst);
  return has_next();
}

}  // namespace bulkhead::device::virtio
