// Which pieces of a disk are still to be done: a bit for each chunk.
#pragma once
#include <algorithm>
#include <bit>
#include <vector>

#include "base/bits.h"
#include "base/ints.h"

namespace bulkhead::block {

struct ByteRange {
  u64 offset = 0, length = 0;
};

class ChunkMap {
 public:
  // Of a disk of `bytes`, in chunks of 2^chunk_bits bytes.
  ChunkMap(u64 bytes, unsigned chunk_bits)
      : bytes_{bytes}, bits_{chunk_bits}, words_((align_up(bytes, chunk()) / chunk() + 63) / 64) {}

  u64 chunk() const { return u64{1} << bits_; }
  bool empty() const { return count_ == 0; }
  u64 remaining() const { return std::min(count_ << bits_, bytes_); }  // bytes, about
  bool test(u64 offset) const {
    return bit(words_[offset >> bits_ >> 6], static_cast<unsigned>((offset >> bits_) & 63));
  }
  // All chunks that the range touches.
  void set(u64 offset, u64 length) { change(offset, length, true); }
  void clear(u64 offset, u64 length) { change(offset, length, false); }
  bool any(u64 offset, u64 length) const {
    for (u64 at = offset; at < offset + length; at = align_down(at, chunk()) + chunk())
      if (test(at)) return true;
    return false;
  }
  // The part of [offset, offset + length) that begins at `offset` and is all set, or all clear.
  u64 same_run(u64 offset, u64 length) const {
    const bool value = test(offset);
    u64 at = offset;
    while (at < offset + length && test(at) == value) at = align_down(at, chunk()) + chunk();
    return std::min(at, offset + length) - offset;
  }
  // The first run that is set at `from` or behind it, of at most `most` bytes; of length 0 if there is none.
  ByteRange next(u64 from, u64 most) const {
    for (u64 at = from; at < bytes_;) {
      const u64 index = at >> bits_, word = words_[index >> 6] >> (index & 63);
      if (word == 0) {
        at = ((index | 63) + 1) << bits_;
        continue;
      }
      at = (index + static_cast<u64>(std::countr_zero(word))) << bits_;
      if (at >= bytes_) break;
      return {at, same_run(at, std::min(most, bytes_ - at))};
    }
    return {};
  }

 private:
  void change(u64 offset, u64 length, bool value) {
    if (length == 0) return;
    for (u64 index = offset >> bits_; index <= (offset + length - 1) >> bits_; ++index) {
      u64& word = words_[index >> 6];
      const u64 mask = u64{1} << (index & 63);
      if (((word & mask) != 0) == value) continue;
      word ^= mask;
      count_ += value ? 1 : ~u64{0};
    }
  }
  const u64 bytes_;
  const unsigned bits_;
  u64 count_ = 0;
  std::vector<u64> words_;
};

}  // namespace bulkhead::block
