// Memory for translated code, mapped twice: written through one address, executed through the other. No address of it
// is ever writable and executable at once.
#pragma once
#include <memory>

#include "base/ints.h"
#include "base/result.h"
#include "memory/large_page_thread.h"
#include "memory/large_pages.h"

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
  // The bytes below `end` will be written now, and some behind them soon, which become resident meanwhile, in large
  // pages where the host has any.
  void prepare(u64 end) {
    if (end + kLargePage > prepared_) prepare_more(end);
  }

 private:
  CodeMemory() = default;
  void prepare_more(u64 end);
  u8* writable_ = nullptr;
  u8* executable_ = nullptr;
  u64 size_ = 0, prepared_ = 0;
  std::unique_ptr<LargePageThread> large_pages_;
};

}  // namespace bulkhead::engine::dbt
