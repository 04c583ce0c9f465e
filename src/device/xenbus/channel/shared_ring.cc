#include "device/xenbus/channel/shared_ring.h"

#include <algorithm>
#include <atomic>
#include <bit>

#include "base/assert.h"

namespace bulkhead::device::xenbus {

SharedRing::SharedRing(std::vector<std::span<std::byte>> pieces, u32* ours, u32* theirs)
    : pieces_{std::move(pieces)},
      size_{static_cast<u32>(pieces_.size() * pieces_[0].size())},
      ours_{ours},
      theirs_{theirs},
      at_{std::atomic_ref{*ours}.load(std::memory_order_relaxed)} {
  BH_ASSERT(std::has_single_bit(size_));
}

std::span<std::byte> SharedRing::from_here(u32 length) const {
  const std::size_t piece_size = pieces_[0].size(), offset = at_ & (size_ - 1);
  const std::span<std::byte> rest = pieces_[offset / piece_size].subspan(offset % piece_size);
  return rest.first(std::min<std::size_t>(rest.size(), length));
}

std::span<const std::byte> SharedRing::readable() {
  const u32 used = std::atomic_ref{*theirs_}.load(std::memory_order_acquire) - at_;
  broken_ |= used > size_;
  return broken_ ? std::span<std::byte>{} : from_here(used);
}

std::span<std::byte> SharedRing::writable() {
  const u32 used = at_ - std::atomic_ref{*theirs_}.load(std::memory_order_acquire);
  broken_ |= used > size_;
  return broken_ ? std::span<std::byte>{} : from_here(size_ - used);
}

void SharedRing::advance(std::size_t bytes) {
  at_ += static_cast<u32>(bytes);
  std::atomic_ref{*ours_}.store(at_, std::memory_order_release);
}

}  // namespace bulkhead::device::xenbus
