#include "block/buffers.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/assert.h"
#include "base/bits.h"

namespace bulkhead::block {
namespace {

// Calls piece(data, length) for each run of [skip, skip + length).
template <class Piece>
void for_range(Buffers buffers, u64 skip, u64 length, Piece piece) {
  for (const IoBuffer& buffer : buffers) {
    if (length == 0) return;
    if (skip >= buffer.length) {
      skip -= buffer.length;
      continue;
    }
    const u64 count = std::min(length, buffer.length - skip);
    piece(buffer.data + skip, count);
    length -= count;
    skip = 0;
  }
  BH_ASSERT(length == 0);
}

}  // namespace

u64 total_bytes(Buffers buffers) {
  u64 total = 0;
  for (const IoBuffer& buffer : buffers)
    if (__builtin_add_overflow(total, buffer.length, &total)) return ~u64{0};
  return total;
}

void copy_out(Buffers from, u64 skip, std::span<std::byte> to) {
  std::byte* at = to.data();
  for_range(from, skip, to.size(), [&](const std::byte* data, u64 count) {
    std::memcpy(at, data, count);
    at += count;
  });
}

void copy_in(Buffers to, u64 skip, std::span<const std::byte> from) {
  const std::byte* at = from.data();
  for_range(to, skip, from.size(), [&](std::byte* data, u64 count) {
    std::memcpy(data, at, count);
    at += count;
  });
}

void fill_zero(Buffers buffers, u64 skip, u64 length) {
  for_range(buffers, skip, length, [](std::byte* data, u64 count) { std::memset(data, 0, count); });
}

bool all_zero(std::span<const std::byte> bytes) {
  // memcmp with itself, shifted by what is known to be zero: as fast as memcmp is.
  constexpr std::size_t kHead = 64;
  const std::size_t head = std::min(kHead, bytes.size());
  if (std::any_of(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(head),
                  [](std::byte one) { return one != std::byte{0}; }))
    return false;
  return bytes.size() <= kHead || std::memcmp(bytes.data(), bytes.data() + kHead, bytes.size() - kHead) == 0;
}

bool all_zero(Buffers buffers) {
  return std::ranges::all_of(buffers, [](const IoBuffer& buffer) {
    return all_zero(std::span<const std::byte>{buffer.data, static_cast<std::size_t>(buffer.length)});
  });
}

bool memory_aligned(Buffers buffers, u64 alignment) {
  if (alignment <= 1) return true;
  return std::ranges::all_of(buffers, [&](const IoBuffer& buffer) {
    return is_aligned(reinterpret_cast<std::uintptr_t>(buffer.data) | buffer.length, alignment);
  });
}

BufferSlice::BufferSlice(Buffers buffers, u64 skip, u64 length) {
  std::size_t count = 0;
  for_range(buffers, skip, length, [&](std::byte* data, u64 bytes) {
    if (count < inside_.size()) {
      inside_[count] = {data, bytes};
    } else {
      if (count == inside_.size()) outside_.assign(inside_.begin(), inside_.end());
      outside_.push_back({data, bytes});
    }
    ++count;
  });
  view_ = outside_.empty() ? Buffers{inside_.data(), count} : Buffers{outside_};
}

AlignedMemory::AlignedMemory(u64 bytes)
    : data_{static_cast<std::byte*>(std::aligned_alloc(kPageSize, align_up(std::max<u64>(bytes, 1), kPageSize)))},
      size_{data_ == nullptr ? 0 : bytes} {}
AlignedMemory::AlignedMemory(AlignedMemory&& other) noexcept
    : data_{std::exchange(other.data_, nullptr)}, size_{std::exchange(other.size_, 0)} {}
AlignedMemory& AlignedMemory::operator=(AlignedMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}
AlignedMemory::~AlignedMemory() { std::free(data_); }

}  // namespace bulkhead::block
