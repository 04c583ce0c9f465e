#include "device/xenbus/ring/back_ring.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>

#include "base/assert.h"

namespace bulkhead::device::xenbus {
namespace {

// Where the shared indexes are in the first page [xen/io/ring.h DEFINE_RING_TYPES].
constexpr u32 kRequestProducer = 0, kRequestEvent = 4, kResponseProducer = 8, kResponseEvent = 12;

}  // namespace

BackRing::BackRing(std::vector<std::byte*> pages, u32 entry_bytes)
    : pages_{std::move(pages)},
      entry_bytes_{entry_bytes},
      size_{std::bit_floor(static_cast<u32>((pages_.size() * kPageSize - kHeaderBytes) / entry_bytes))},
      taken_{shared_index(kResponseProducer)},
      answered_{taken_},
      notified_{taken_} {}

// Sequentially consistent, both: where one end shows its index and then looks at the other's wish, and the other the
// reverse, one of them must see.
u32 BackRing::shared_index(u32 offset) const {
  return std::atomic_ref{*reinterpret_cast<u32*>(pages_[0] + offset)}.load();
}

void BackRing::set_shared_index(u32 offset, u32 value) {
  std::atomic_ref{*reinterpret_cast<u32*>(pages_[0] + offset)}.store(value);
}

// Entries may lie across two pages.
template <class Copy>
void BackRing::pieces(u32 index, std::size_t length, Copy copy) const {
  std::size_t at = kHeaderBytes + std::size_t{index & (size_ - 1)} * entry_bytes_;
  for (std::size_t done = 0; done < length;) {
    const std::size_t piece = std::min(length - done, kPageSize - at % kPageSize);
    copy(pages_[at / kPageSize] + at % kPageSize, done, piece);
    done += piece;
    at += piece;
  }
}

bool BackRing::pending() {
  // A request and a response share their place: there are never more of both than places.
  const u32 ahead = shared_index(kRequestProducer) - taken_;
  if (ahead > size_ - (taken_ - answered_)) overrun_ = true;
  return ahead != 0 && !overrun_;
}

bool BackRing::take(std::span<std::byte> out) {
  BH_ASSERT(out.size() == entry_bytes_);
  if (overrun_ || !pending()) return false;
  pieces(taken_, entry_bytes_,
         [&](const std::byte* from, std::size_t done, std::size_t size) { std::memcpy(&out[done], from, size); });
  ++taken_;
  return true;
}

void BackRing::respond(std::span<const std::byte> response) {
  BH_ASSERT(answered_ != taken_ && response.size() <= entry_bytes_);
  pieces(answered_, response.size(),
         [&](std::byte* to, std::size_t done, std::size_t size) { std::memcpy(to, &response[done], size); });
  set_shared_index(kResponseProducer, ++answered_);
}

bool BackRing::notify_wanted() {
  const u32 since = answered_ - notified_;
  notified_ = answered_;
  return answered_ - shared_index(kResponseEvent) < since;
}

bool BackRing::sleep() {
  if (overrun_) return true;
  if (pending()) return false;
  set_shared_index(kRequestEvent, taken_ + 1);
  return !pending();
}

}  // namespace bulkhead::device::xenbus
