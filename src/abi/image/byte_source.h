// Bounded reads from a file or from memory. A read that does not lie wholly inside is an error, never short.
#pragma once
#include <algorithm>
#include <cstddef>
#include <span>
#include <string>

#include "base/fd.h"
#include "base/ints.h"
#include "base/result.h"

namespace bulkhead::abi {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual u64 size() const = 0;  // bytes
  // Errors: the range is not wholly inside ("truncated"), or the host failed.
  virtual Result<void> read(u64 offset, std::span<std::byte> out) const = 0;

  template <class T>
  Result<T> load(u64 offset) const {
    T value;
    BH_TRY(read(offset, std::as_writable_bytes(std::span{&value, 1})));
    return value;
  }
};

// Memory that outlives the source. `declared_size` may be larger than the bytes at hand: of a file whose beginning is
// known only.
class MemorySource final : public ByteSource {
 public:
  explicit MemorySource(std::span<const std::byte> bytes, u64 declared_size = 0)
      : bytes_{bytes}, size_{std::max<u64>(bytes.size(), declared_size)} {}
  u64 size() const override { return size_; }
  Result<void> read(u64 offset, std::span<std::byte> out) const override;

 private:
  std::span<const std::byte> bytes_;
  u64 size_;
};

// A regular file. It is read, not mapped: a file that shrinks meanwhile is then an error and not a SIGBUS.
class FileSource final : public ByteSource {
 public:
  // `what` names the file's purpose in errors, e.g. "kernel".
  static Result<FileSource> open(std::string_view what, const std::string& path);
  u64 size() const override { return size_; }
  Result<void> read(u64 offset, std::span<std::byte> out) const override;

 private:
  FileSource(UniqueFd fd, u64 size) : fd_{std::move(fd)}, size_{size} {}
  UniqueFd fd_;
  u64 size_;
};

}  // namespace bulkhead::abi
