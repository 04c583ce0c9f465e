// The memory that translated code of one vCPU reaches from the host's RSP: a small stack for the helpers that it calls,
// the CpuState right above it, and the translator's own tables behind that. One mapping, a guard page at each end.
#pragma once
#include "base/result.h"
#include "engine/dbt/cpu/cpu_state.h"

namespace bulkhead::engine::dbt {

class VcpuArena {
 public:
  static constexpr u64 kStackSize = 256 << 10;  // below the CpuState
  static constexpr u64 kTablesSize = 1 << 20;   // behind it; zero at first, touched only where used

  static Result<VcpuArena> create();
  VcpuArena(VcpuArena&& other) noexcept;
  VcpuArena& operator=(VcpuArena&&) = delete;
  ~VcpuArena();

  CpuState& state() const { return *state_; }

 private:
  VcpuArena() = default;
  void* mapping_ = nullptr;
  u64 size_ = 0;
  CpuState* state_ = nullptr;
};

// Where the tables of the arena that holds `state` begin.
inline std::byte* arena_tables(CpuState& state) { return reinterpret_cast<std::byte*>(&state + 1); }

}  // namespace bulkhead::engine::dbt
