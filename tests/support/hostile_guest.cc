#include "support/hostile_guest.h"

#include "device/virtio/queue/ring_memory.h"
#include "spec/virtio.h"

// A guest may write its memory while a device reads it; that is what we test and no race of ours. (ThreadSanitizer asks
// this function; elsewhere nobody does.)
extern "C" const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() { return "race:bulkhead::test::HostileGuest\n"; }

namespace bulkhead::test {

using namespace spec::virtio;
using namespace spec::virtio::mmio;
using device::virtio::store;

u64 HostileGuest::interesting() {
  switch (below(6)) {
    case 0:
      return below(20);
    case 1:
      return u64{1} << below(64);
    case 2:
      return ~u64{0} - below(20);
    case 3:
      return guest_->memory().size() - 64 + below(128);  // around the end of RAM
    case 4:
      return below(guest_->memory().size());
    default:
      return random_();
  }
}

void HostileGuest::random_access() {
  static constexpr AccessSize kSizes[] = {AccessSize::k1, AccessSize::k2, AccessSize::k4, AccessSize::k8};
  const bool aligned = below(4) != 0;
  const AccessSize size = below(3) != 0 ? AccessSize::k4 : kSizes[below(4)];
  const u64 offset = aligned ? below(0x120 / 4) * 4 : below(0x1010);
  if (below(3) == 0)
    guest_->registers().read(offset, size);
  else
    guest_->registers().write(offset, interesting(), size);
}

void HostileGuest::begin() { guest_.emplace(registers_, memory_); }

void HostileGuest::touch_registers(unsigned operations, unsigned queues) {
  for (unsigned i = 0; i < operations; ++i) {
    random_access();
    if (below(16) == 0) {
      static constexpr u64 kPlausible[] = {kRegQueueSel, kRegQueueReady, kRegQueueNotify, kRegStatus, kRegQueueSize};
      guest_->write(kPlausible[below(5)], static_cast<u32>(below(queues + 2)));
    }
    if (below(500) == 0) {
      begin();
      guest_->bring_up(random_(), {below(2) != 0, below(2) != 0, below(2) != 0}, queues, 8);
    }
  }
  guest_->write(kRegStatus, 0);
}

u64 HostileGuest::address() {
  // Mostly RAM above the rings, so that requests are often whole; else anything, the rings themselves too.
  const u64 size = guest_->memory().size();
  return below(8) != 0 ? size / 2 + below(size / 2) : interesting();
}

u32 HostileGuest::length() {
  static constexpr u32 kLikely[] = {1, 8, 16, 32, 512, 513, 4096};
  return below(6) != 0 ? kLikely[below(7)] : static_cast<u32>(interesting());
}

void HostileGuest::scribble(VirtqueueDriver& queue, bool packed, u16 size) {
  const auto put = [&](Gpa at, u16 entries, bool in_ring) {
    u16 flags = static_cast<u16>(below(4) | (below(4) == 0 ? kDescIndirect : 0));
    const bool table = in_ring && (flags & kDescIndirect);
    const u64 to = table && below(4) != 0 ? queue.table(static_cast<u16>(below(size))).value : address();
    const u32 bytes = table ? static_cast<u32>(16 * below(6) + (below(8) == 0)) : length();
    if (packed) {
      if (in_ring) flags |= below(2) ? kDescAvail : kDescUsed;
      guest_->queue(0).put_descriptor(at, to, bytes, static_cast<u16>(below(2 * size)), flags);
    } else {
      guest_->queue(0).put_descriptor(at, to, bytes, flags, static_cast<u16>(below(entries + 1)));
    }
  };
  for (u16 i = 0; i < size; ++i) put(queue.descriptor(i), size, true);
  for (u16 i = 0; i < size; ++i)
    for (u16 j = 0; j < 4; ++j) put(queue.table(i) + 16 * j, 4, false);
  // What requests look like to blk and to the console's control queue: a small type, then small numbers.
  for (unsigned i = 0; i < 64; ++i) (void)guest_->memory().store(Gpa{address() & ~u64{15}}, u32(below(15)));
  if (packed) return;
  for (u16 i = 0; i < size; ++i) (void)guest_->memory().store(queue.available(4 + 2 * i), u16(below(size + 1)));
  std::byte* const index = guest_->memory().host(queue.available(2), 2);
  const u16 step = below(16) == 0 ? static_cast<u16>(random_()) : static_cast<u16>(below(size + 1));
  store<u16>(index, static_cast<u16>(device::virtio::load<u16>(index) + step));
}

void HostileGuest::corrupt_rings(unsigned rounds, unsigned queues, u64 device_features) {
  static constexpr u16 kSize = 8;
  for (unsigned round = 0; round < rounds; ++round) {
    begin();
    const RingOptions rings{below(2) != 0, below(4) != 0, below(2) != 0};
    guest_->bring_up(below(4) == 0 ? random_() : device_features, rings, queues, kSize);
    for (unsigned i = 0; i < 8; ++i) {
      const auto index = static_cast<unsigned>(below(queues));
      scribble(guest_->queue(index), rings.packed, kSize);
      guest_->write(kRegQueueNotify, index);
      if (below(16) == 0) random_access();
    }
  }
  guest_->write(kRegStatus, 0);
}

}  // namespace bulkhead::test
