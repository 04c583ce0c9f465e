// Memory for translated code, mapped twice: written through one address, executed through the other. No address of it
// is ever writable and executable at once.
#pragma once
#include "base/ints.h"
#include "base/result.h"

namespace bulkhead::engine::dbt {

class CodeMemory {
 public:
  static Result<CodeMemory> create(u64 size);
  CodeMemory(CodeMemory&& other) noexcept;
  CodeMemory& operator=(CodeMemory&&) = delete;
  ~CodeMemory();

  u8* writable() const { return writable_; }
  u64 size() const { return size_; }
  const u8* executable(const u8* writable) const { return executable_ + (writable - writable_); }
  const u8* begin() const { return executable_; }
  const u8* end() const { return executable_ + size_; }
  // Gives the pages from `offset` on back to the host.
  void release_from(u64 offset);

 private:
  CodeMemory() = default;
  u8* writable_ = nullptr;
  u8* executable_ = nullptr;
  u64 size_ = 0;
};

}  // namespace bulkhead::engine::dbt
