#include "support/virtqueue_driver.h"

#include <cstring>
#include <utility>

#include "base/assert.h"
#include "base/bits.h"
#include "device/virtio/queue/ring_memory.h"
#include "spec/virtio.h"

namespace bulkhead::test {

using namespace spec::virtio;
using device::virtio::load;
using device::virtio::store;

namespace {
u64 ring_bytes(u16 size) { return align_up(u64{16} * size, kPageSize); }
u64 event_bytes(u16 size) { return align_up(u64{8} * size + 6, kPageSize); }
constexpr auto kSeq = std::memory_order_seq_cst;
}  // namespace

u64 VirtqueueDriver::bytes_needed(u16 size) {
  return ring_bytes(size) + 2 * event_bytes(size) + align_up(u64{16} * kTableEntries * size, kPageSize);
}

VirtqueueDriver::VirtqueueDriver(const GuestMemory& memory, Gpa area, u16 size, RingOptions options)
    : memory_{memory}, size_{size}, lengths_(size), taken_(size), free_entries_{size} {
  config_ = {.size = size,
             .descriptors = area,
             .driver = area + ring_bytes(size),
             .device = area + ring_bytes(size) + event_bytes(size),
             .packed = options.packed,
             .indirect = options.indirect,
             .event_index = options.event_index};
  tables_ = config_.device + event_bytes(size);
  BH_ASSERT(memory.host(area, bytes_needed(size)) != nullptr);
  std::memset(host(area), 0, bytes_needed(size));
  for (u16 i = size; i-- > 0;) free_.push_back(i);
}

device::virtio::QueueConfig VirtqueueDriver::config() const { return config_; }

void VirtqueueDriver::put_descriptor(Gpa at, u64 address, u32 length, u16 third, u16 fourth) {
  store<u64>(host(at), address);
  store<u64>(host(at) + 8, length | u64{third} << 32 | u64{fourth} << 48);
}

std::optional<u16> VirtqueueDriver::add(std::span<const DriverBuffer> buffers) {
  const auto token = config_.packed ? add_packed(buffers) : add_split(buffers);
  if (token) ++in_flight_;
  return token;
}

std::optional<u16> VirtqueueDriver::add_split(std::span<const DriverBuffer> buffers) {
  const bool indirect = config_.indirect && buffers.size() <= kTableEntries;
  const std::size_t needed = indirect ? 1 : buffers.size();
  if (free_.size() < needed) return std::nullopt;
  std::vector<u16> taken;
  for (std::size_t i = 0; i < needed; ++i) {
    taken.push_back(free_.back());
    free_.pop_back();
  }
  const u16 head = taken[0];
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    const bool more = i + 1 < buffers.size();
    const u16 flags = (more ? kDescNext : 0) | (buffers[i].device_writes ? kDescWrite : 0);
    const u16 next = !more ? 0 : indirect ? static_cast<u16>(i + 1) : taken[i + 1];
    const Gpa at = indirect ? table(head) + 16 * i : descriptor(taken[i]);
    put_descriptor(at, buffers[i].at.value, buffers[i].length, flags, next);
  }
  if (indirect)
    put_descriptor(descriptor(head), table(head).value, static_cast<u32>(16 * buffers.size()), kDescIndirect, 0);
  taken_[head] = std::move(taken);
  publish_raw(head);
  return head;
}

void VirtqueueDriver::publish_raw(u16 head) {
  store<u16>(host(available(4 + 2 * (next_available_ % size_))), head);
  store<u16>(host(available(2)), ++next_available_, kSeq);
  ++unkicked_;
}

void VirtqueueDriver::advance(Position& position, u32 by) const {
  u32 index = position.index + by;
  if (index >= size_) {
    index -= size_;
    position.wrap = !position.wrap;
  }
  position.index = static_cast<u16>(index);
}

std::optional<u16> VirtqueueDriver::add_packed(std::span<const DriverBuffer> buffers) {
  const bool indirect = config_.indirect && buffers.size() <= kTableEntries;
  const auto needed = static_cast<u16>(indirect ? 1 : buffers.size());
  if (free_entries_ < needed || free_.empty()) return std::nullopt;
  const u16 id = free_.back();
  free_.pop_back();
  const Position head = available_;
  u16 head_flags = 0;
  for (u16 i = 0; i < needed; ++i) {
    u16 flags = available_.wrap ? kDescAvail : kDescUsed;
    if (indirect)
      flags |= kDescIndirect;
    else
      flags |= (i + 1 < needed ? kDescNext : 0) | (buffers[i].device_writes ? kDescWrite : 0);
    const u64 address = indirect ? table(id).value : buffers[i].at.value;
    const auto length = indirect ? static_cast<u32>(16 * buffers.size()) : buffers[i].length;
    if (i == 0) head_flags = flags;
    // The head goes last, or the device would see half a chain.
    const u16 now = i == 0 ? load<u16>(host(descriptor(head.index)) + 14) : flags;
    put_descriptor(descriptor(available_.index), address, length, id, now);
    advance(available_, 1);
  }
  for (std::size_t i = 0; indirect && i < buffers.size(); ++i)
    put_descriptor(table(id) + 16 * i, buffers[i].at.value, buffers[i].length, 0,
                   buffers[i].device_writes ? kDescWrite : 0);
  store<u16>(host(descriptor(head.index)) + 14, head_flags, kSeq);
  lengths_[id] = needed;
  free_entries_ = static_cast<u16>(free_entries_ - needed);
  unkicked_ += needed;
  return id;
}

std::optional<VirtqueueDriver::Used> VirtqueueDriver::poll() {
  const auto used = config_.packed ? poll_packed() : poll_split();
  if (used) --in_flight_;
  return used;
}

std::optional<VirtqueueDriver::Used> VirtqueueDriver::poll_split() {
  if (load<u16>(host(used(2)), kSeq) == last_used_) return std::nullopt;
  const Gpa entry = used(4 + 8 * (last_used_ % size_));
  const auto id = static_cast<u16>(load<u32>(host(entry)));
  const u32 length = load<u32>(host(entry) + 4);
  ++last_used_;
  BH_ASSERT(id < size_ && !taken_[id].empty());
  for (const u16 descriptor : taken_[id]) free_.push_back(descriptor);
  taken_[id].clear();
  return Used{id, length};
}

std::optional<VirtqueueDriver::Used> VirtqueueDriver::poll_packed() {
  std::byte* const entry = host(descriptor(used_.index));
  const u16 flags = load<u16>(entry + 14, kSeq);
  if (bool(flags & kDescAvail) != used_.wrap || bool(flags & kDescUsed) != used_.wrap) return std::nullopt;
  const u16 id = load<u16>(entry + 12);
  const u32 length = load<u32>(entry + 8);
  BH_ASSERT(id < size_ && lengths_[id] != 0);
  advance(used_, lengths_[id]);
  free_entries_ = static_cast<u16>(free_entries_ + lengths_[id]);
  lengths_[id] = 0;
  free_.push_back(id);
  return Used{id, length};
}

bool VirtqueueDriver::kick_wanted() {
  const u32 fresh = std::exchange(unkicked_, 0);
  if (fresh == 0) return false;
  if (config_.packed) return kick_wanted_packed(fresh);
  if (!config_.event_index) return !(load<u16>(host(used()), kSeq) & kUsedNoNotify);
  const u16 event = load<u16>(host(used(4 + 8 * size_)), kSeq);
  return static_cast<u16>(next_available_ - event - 1) < fresh;
}

bool VirtqueueDriver::kick_wanted_packed(u32 fresh) {
  const u16 flags = load<u16>(host(used(2)), kSeq);
  if (flags != kEventDescriptor) return flags == kEventEnable;
  const u16 event = load<u16>(host(used()));
  int back = available_.index - (event & 0x7fff);
  if (bool(event >> 15) != available_.wrap) back += size_;
  return back >= 1 && static_cast<u32>(back) <= fresh;
}

void VirtqueueDriver::suppress_interrupts() {
  if (config_.packed)
    store<u16>(host(available(2)), kEventDisable, kSeq);
  else if (config_.event_index)
    store<u16>(host(available(4 + 2 * size_)), static_cast<u16>(last_used_ - 1), kSeq);
  else
    store<u16>(host(available()), kAvailNoInterrupt, kSeq);
}

void VirtqueueDriver::request_interrupt(u16 after) {
  if (config_.packed && config_.event_index) {
    Position at = used_;
    advance(at, after);
    store<u16>(host(available()), static_cast<u16>(at.index | (at.wrap ? 0x8000 : 0)));
    store<u16>(host(available(2)), kEventDescriptor, kSeq);
  } else if (config_.packed) {
    store<u16>(host(available(2)), kEventEnable, kSeq);
  } else if (config_.event_index) {
    store<u16>(host(available(4 + 2 * size_)), static_cast<u16>(last_used_ + after), kSeq);
  } else {
    store<u16>(host(available()), 0, kSeq);
  }
}

}  // namespace bulkhead::test
