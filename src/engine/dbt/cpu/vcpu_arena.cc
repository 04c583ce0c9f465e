#include "engine/dbt/cpu/vcpu_arena.h"

#include <sys/mman.h>

#include <new>
#include <utility>

#include "base/bits.h"

namespace bulkhead::engine::dbt {

Result<VcpuArena> VcpuArena::create() {
  const u64 body = align_up(kStackSize + sizeof(CpuState) + kTablesSize, kPageSize);
  const u64 size = body + 2 * kPageSize;
  void* const mapping = ::mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) return fail_errno("cannot reserve {} bytes for a vCPU", size);
  VcpuArena arena;
  arena.mapping_ = mapping;
  arena.size_ = size;
  std::byte* const usable = static_cast<std::byte*>(mapping) + kPageSize;
  if (::mprotect(usable, body, PROT_READ | PROT_WRITE) != 0)
    return fail_errno("cannot allocate {} bytes for a vCPU", body);
  arena.state_ = new (usable + kStackSize) CpuState;
  return arena;
}

VcpuArena::VcpuArena(VcpuArena&& other) noexcept
    : mapping_{std::exchange(other.mapping_, nullptr)}, size_{other.size_}, state_{other.state_} {}

VcpuArena::~VcpuArena() {
  if (mapping_ != nullptr) ::munmap(mapping_, size_);
}

}  // namespace bulkhead::engine::dbt
