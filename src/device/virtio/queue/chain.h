// A descriptor chain that the driver has made available: host memory to read and to write, already checked.
// Owed back: a chain goes home through Queue::push() or Queue::drop(), and asserts that it did.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "base/assert.h"
#include "base/ints.h"
#include "block/buffers.h"

namespace bulkhead::device::virtio {

using block::IoBuffer;  // a run of host memory; here always guest RAM, whose bytes may change at any time

// The buffers of one chain. Kept by the queue and used again, so that a request allocates nothing.
struct ChainBuffers {
  std::vector<IoBuffer> readable, writable;  // device-readable, device-writable; no empty ones
  std::size_t first_readable = 0;            // those before it have been taken
  u64 readable_bytes = 0, writable_bytes = 0;
  std::byte* taken_last = nullptr;  // by take_last_writable()
  void clear();
};

class Chain {
 public:
  Chain(Chain&&) noexcept = default;
  Chain& operator=(Chain&& other) noexcept {
    BH_ASSERT(buffers_ == nullptr);
    buffers_ = std::move(other.buffers_);
    id_ = other.id_;
    ring_entries_ = other.ring_entries_;
    return *this;
  }
  ~Chain() { BH_ASSERT(buffers_ == nullptr); }

  // What is left of each side.
  std::span<const IoBuffer> readable() const { return std::span{buffers_->readable}.subspan(buffers_->first_readable); }
  std::span<const IoBuffer> writable() const { return buffers_->writable; }
  u64 readable_bytes() const { return buffers_->readable_bytes; }
  u64 writable_bytes() const { return buffers_->writable_bytes; }

  // Copies the next out.size() readable bytes out, once, and drops them. False, and nothing taken, if there are fewer.
  [[nodiscard]] bool take(std::span<std::byte> out);
  // Drops the next `count` readable bytes, at most readable_bytes().
  void skip(u64 count);
  // Removes the last writable byte and returns where it is; nullptr if there is none.
  std::byte* take_last_writable();
  // Copies `in` to the start of the writable side as far as it fits; returns how much.
  u64 write(std::span<const std::byte> in) const;

 private:
  friend class Queue;
  Chain(std::unique_ptr<ChainBuffers> buffers, u16 id, u16 ring_entries)
      : buffers_{std::move(buffers)}, id_{id}, ring_entries_{ring_entries} {}
  std::unique_ptr<ChainBuffers> buffers_;  // null: given back, or moved from
  u16 id_;                                 // split: head index; packed: buffer ID, whatever the driver chose
  u16 ring_entries_;                       // packed: descriptors it took in the ring
};

}  // namespace bulkhead::device::virtio
