// Scatter lists of host memory, and what is done with parts of them.
#pragma once
#include <array>
#include <span>
#include <vector>

#include "base/ints.h"

namespace bulkhead::block {

// A run of host memory (guest memory: its bytes may change while we look).
struct IoBuffer {
  std::byte* data = nullptr;
  u64 length = 0;
};

// A request's memory. The list and what it names stay until the request has completed.
using Buffers = std::span<const IoBuffer>;

u64 total_bytes(Buffers buffers);
void copy_out(Buffers from, u64 skip, std::span<std::byte> to);       // buffers -> to; all of `to` lies within
void copy_in(Buffers to, u64 skip, std::span<const std::byte> from);  // from -> buffers
void fill_zero(Buffers buffers, u64 skip, u64 length);
bool all_zero(Buffers buffers);
bool all_zero(std::span<const std::byte> bytes);
bool memory_aligned(Buffers buffers, u64 alignment);  // each address and each length

// The part [skip, skip + length) of a list, as a list of its own. Keeps up to six pieces inside, more on the heap.
// Neither copied nor moved, for spans of it are about: make it where the request that uses it is awaited.
class BufferSlice {
 public:
  BufferSlice(Buffers buffers, u64 skip, u64 length);
  BufferSlice(const BufferSlice&) = delete;
  BufferSlice& operator=(const BufferSlice&) = delete;
  Buffers get() const { return view_; }
  operator Buffers() const { return view_; }

 private:
  std::array<IoBuffer, 6> inside_;
  std::vector<IoBuffer> outside_;
  Buffers view_;
};

// Page-aligned host memory that frees itself; good for direct I/O.
class AlignedMemory {
 public:
  AlignedMemory() = default;
  explicit AlignedMemory(u64 bytes);  // not cleared; data() is nullptr if there is none
  AlignedMemory(AlignedMemory&& other) noexcept;
  AlignedMemory& operator=(AlignedMemory&& other) noexcept;
  ~AlignedMemory();
  std::byte* data() const { return data_; }
  u64 size() const { return size_; }
  std::span<std::byte> bytes() const { return {data_, static_cast<std::size_t>(size_)}; }
  IoBuffer buffer() const { return {data_, size_}; }
  explicit operator bool() const { return data_ != nullptr; }

 private:
  std::byte* data_ = nullptr;
  u64 size_ = 0;
};

}  // namespace bulkhead::block
