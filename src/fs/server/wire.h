// Messages of the FUSE protocol [linux fuse.h]: cutting requests up, putting replies together.
#pragma once
#include <linux/fuse.h>

#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "base/ints.h"

namespace bulkhead::fs {

inline constexpr u32 kMaxData = 1_MiB;  // of one read or write
inline constexpr u32 kMaxRequest = kMaxData + 4096, kMaxReply = kMaxData + 4096;
inline constexpr std::size_t kMaxName = 255;

// What is left of a request's body. Everything is copied out or bounded by it.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> body) : rest_{body} {}
  template <class T>
  std::optional<T> take() {
    return take_part<T>(sizeof(T));
  }
  // The first `size` bytes of a T, the rest zero.
  template <class T>
  std::optional<T> take_part(std::size_t size) {
    if (rest_.size() < size) return std::nullopt;
    T value{};
    std::memcpy(&value, rest_.data(), size);
    rest_ = rest_.subspan(size);
    return value;
  }
  // Up to the next NUL, which is taken too; nothing if there is none.
  std::optional<std::string_view> text() {
    const auto* const start = reinterpret_cast<const char*>(rest_.data());
    const void* const end = rest_.empty() ? nullptr : std::memchr(start, 0, rest_.size());
    if (end == nullptr) return std::nullopt;
    const auto size = static_cast<std::size_t>(static_cast<const char*>(end) - start);
    rest_ = rest_.subspan(size + 1);
    return std::string_view{start, size};  // with a NUL behind it
  }
  std::span<const std::byte> rest() const { return rest_; }
  bool at_end() const { return rest_.empty(); }

 private:
  std::span<const std::byte> rest_;
};

// One reply at a time, with room for the largest.
class Reply {
 public:
  Reply() : bytes_{std::make_unique_for_overwrite<std::byte[]>(kMaxReply)} {}
  void begin() { size_ = sizeof(fuse_out_header); }
  // kMaxReply bounds all that is put into it; callers bound what is theirs.
  template <class T>
  void put(const T& value) {
    std::memcpy(bytes_.get() + size_, &value, sizeof value);
    size_ += sizeof value;
  }
  void put_bytes(const void* data, std::size_t size) {
    std::memcpy(bytes_.get() + size_, data, size);
    size_ += size;
  }
  void zeroes(std::size_t size) {
    std::memset(bytes_.get() + size_, 0, size);
    size_ += size;
  }
  std::span<std::byte> room(std::size_t size) { return {bytes_.get() + size_, size}; }
  void grow(std::size_t size) { size_ += size; }
  std::size_t payload() const { return size_ - sizeof(fuse_out_header); }
  std::span<const std::byte> finish(u64 unique, int error) {
    if (error != 0) size_ = sizeof(fuse_out_header);
    const fuse_out_header header{static_cast<u32>(size_), -error, unique};
    std::memcpy(bytes_.get(), &header, sizeof header);
    return {bytes_.get(), size_};
  }

 private:
  std::unique_ptr<std::byte[]> bytes_;
  std::size_t size_ = 0;
};

}  // namespace bulkhead::fs
