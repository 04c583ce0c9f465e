#include "engine/dbt/cache/code_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <utility>

#include "base/fd.h"

namespace bulkhead::engine::dbt {

Result<CodeMemory> CodeMemory::create(u64 size) {
  const UniqueFd fd{::memfd_create("bulkhead-code", MFD_CLOEXEC)};
  if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(size)) != 0)
    return fail_errno("cannot allocate {} bytes for translated code", size);
  CodeMemory memory;
  memory.size_ = size;
  void* const writable = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (writable == MAP_FAILED) return fail_errno("cannot map {} bytes for translated code", size);
  memory.writable_ = static_cast<u8*>(writable);
  void* const executable = ::mmap(nullptr, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd.get(), 0);
  if (executable == MAP_FAILED)
    return fail_errno("cannot map translated code as executable (does a security policy forbid it?)");
  memory.executable_ = static_cast<u8*>(executable);
  return memory;
}

CodeMemory::CodeMemory(CodeMemory&& other) noexcept
    : writable_{std::exchange(other.writable_, nullptr)},
      executable_{std::exchange(other.executable_, nullptr)},
      size_{other.size_} {}

CodeMemory::~CodeMemory() {
  if (writable_ != nullptr) ::munmap(writable_, size_);
  if (executable_ != nullptr) ::munmap(executable_, size_);
}

void CodeMemory::release_from(u64 offset) {
  const u64 start = (offset + kPageSize - 1) & ~(kPageSize - 1);
  if (start < size_) ::madvise(writable_ + start, size_ - start, MADV_REMOVE);
}

}  // namespace bulkhead::engine::dbt
