// Private memory of ours that reads as zero, in large pages where the host gives them, and that goes back to the host
// at once when it is not needed any more, whatever malloc would do.
#pragma once
#include <cstddef>
#include <span>
#include <utility>

#include "base/ints.h"
#include "base/result.h"

namespace bulkhead {

class Pages {
 public:
  static Result<Pages> allocate(u64 size);  // bytes; 0 is nothing
  Pages(Pages&& other) noexcept : bytes_{std::exchange(other.bytes_, {})} {}
  Pages& operator=(Pages&&) = delete;
  ~Pages();
  std::span<std::byte> bytes() const { return bytes_; }

 private:
  explicit Pages(std::span<std::byte> bytes) : bytes_{bytes} {}
  std::span<std::byte> bytes_;
};

}  // namespace bulkhead
