// One direction of a channel: bytes in shared pages between two indexes that both ends may write at any moment
// [xen/io/libxenvchan.h ring_shared]. What we know of our own index stays ours.
// One thread at a time.
#pragma once
#include <span>
#include <vector>

#include "base/ints.h"

namespace bulkhead::device::xenbus {

class SharedRing {
 public:
  // A ring that is a part of one page, or whole pages, in that order. `ours` and `theirs`: the two shared indexes;
  // ours goes on from where the page says it is.
  SharedRing(std::vector<std::span<std::byte>> pieces, u32* ours, u32* theirs);

  // As the consumer: bytes to take, up to the next edge; empty: none now, or broken().
  std::span<const std::byte> readable();
  // As the producer: room up to the next edge.
  std::span<std::byte> writable();
  void advance(std::size_t bytes);         // so many of what was returned last
  bool broken() const { return broken_; }  // their index is further away than the ring is long; for ever

 private:
  std::span<std::byte> from_here(u32 length) const;

  std::vector<std::span<std::byte>> pieces_;
  u32 size_;
  u32* const ours_;
  u32* const theirs_;
  u32 at_;
  bool broken_ = false;
};

}  // namespace bulkhead::device::xenbus
