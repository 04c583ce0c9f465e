#include "engine/dbt/cache/code_memory.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/bits.h"
#include "base/fd.h"

namespace bulkhead::engine::dbt {

Result<CodeMemory> CodeMemory::create(u64 size) {
  const UniqueFd fd{::memfd_create("bulkhead-code", MFD_CLOEXEC)};
  if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(size)) != 0)
    return fail_errno("cannot allocate {} bytes for translated code", size);
  CodeMemory memory;
  memory.size_ = size;
  void* const writable = map_for_large_pages(fd.get(), size);
  if (writable == MAP_FAILED) return fail_errno("cannot map {} bytes for translated code", size);
  memory.writable_ = static_cast<u8*>(writable);
  void* const executable = map_for_large_pages(fd.get(), size, PROT_READ | PROT_EXEC);
  if (executable == MAP_FAILED)
    return fail_errno("cannot map translated code as executable (does a security policy forbid it?)");
  memory.executable_ = static_cast<u8*>(executable);
  memory.large_pages_ = std::make_unique<LargePageThread>();
  memory.prepare(0);
  return memory;
}

CodeMemory::CodeMemory(CodeMemory&& other) noexcept
    : writable_{std::exchange(other.writable_, nullptr)},
      executable_{std::exchange(other.executable_, nullptr)},
      size_{other.size_},
      prepared_{other.prepared_},
      large_pages_{std::move(other.large_pages_)} {}

CodeMemory::~CodeMemory() {
  large_pages_.reset();
  if (writable_ != nullptr) ::munmap(writable_, size_);
  if (executable_ != nullptr) ::munmap(executable_, size_);
}

// What is left behind the last whole large page comes page by page.
void CodeMemory::prepare_more(u64 end) {
  const u64 last = align_down(size_, kLargePage), next = std::min(align_up(end, kLargePage) + kLargePage, last);
  if (next > prepared_) large_pages_->ask(writable_ + prepared_, next - prepared_);
  prepared_ = next == last ? size_ + kLargePage : next;
}

}  // namespace bulkhead::engine::dbt
