#include "bus/bus.h"

#include <algorithm>

#include "base/bits.h"

namespace bulkhead {

Result<void> Bus::attach(u64 start, u64 length, IoDevice& device, Mutex& lock) {
  if (length == 0 || start + length < start)
    return fail("bus range at {:#x} of {:#x} bytes is not valid", start, length);
  const auto after = std::ranges::upper_bound(ranges_, start, {}, &Range::start);
  if (after != ranges_.end() && after->start - start < length)
    return fail("bus range at {:#x} overlaps the one at {:#x}", start, after->start);
  if (after != ranges_.begin()) {
    const Range& before = *std::prev(after);
    if (start - before.start < before.length)
      return fail("bus range at {:#x} overlaps the one at {:#x}", start, before.start);
  }
  ranges_.insert(after, Range{start, length, &device, &lock});
  return {};
}

Result<void> Bus::attach(u64 start, u64 length, IoDevice& device) {
  own_locks_.push_back(std::make_unique<Mutex>());
  return attach(start, length, device, *own_locks_.back());
}

const Bus::Range* Bus::find(u64 address, unsigned size) const {
  const auto after = std::ranges::upper_bound(ranges_, address, {}, &Range::start);
  if (after == ranges_.begin()) return nullptr;
  const Range& range = *std::prev(after);
  return range_within(address - range.start, size, range.length) ? &range : nullptr;
}

IoReply Bus::read(u64 address, AccessSize size) {
  IoReply reply = IoReply::ignored();
  if (const Range* range = find(address, bytes_of(size))) {
    Lock lock{*range->lock};
    reply = range->device->read(address - range->start, size);
  }
  if (!reply.handled) {
    unclaimed_.fetch_add(1, std::memory_order_relaxed);
    reply.value = ~u64{0};
  }
  reply.value &= mask_for_size(bytes_of(size));
  return reply;
}

IoReply Bus::write(u64 address, u64 value, AccessSize size) {
  IoReply reply = IoReply::ignored();
  if (const Range* range = find(address, bytes_of(size))) {
    Lock lock{*range->lock};
    reply = range->device->write(address - range->start, value & mask_for_size(bytes_of(size)), size);
  }
  if (!reply.handled) unclaimed_.fetch_add(1, std::memory_order_relaxed);
  return reply;
}

u64 Bus::unclaimed() const { return unclaimed_.load(std::memory_order_relaxed); }

}  // namespace bulkhead
