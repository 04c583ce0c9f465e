// Runs one rewritten instruction on the host's units with the guest's state loaded.
#pragma once
#include <array>

#include "engine/dbt/simd/plan.h"

namespace bulkhead::engine::dbt {

// Offsets are known to the code in stub.cc.
struct StubFrame {
  u64 rax = 0, rcx = 0, rdx = 0;  // in and out
  u64 flags = 2;                  // arithmetic flags, in and out
  void* memory = nullptr;         // what [rsi] and [rdi] are
  std::byte* state_in = nullptr;  // XSAVE images
  std::byte* state_out = nullptr;
  u64 components = 0;    // XSAVE mask
  i64 fault = -1;        // exception vector that the instruction raised, or -1
  u64 insn_address = 0;  // out: where it ran, as x87 recorded it
};

// Per thread. `slot` from find_plan(). Sets the thread's fault stack up. On a fault the state is stored
// as the instruction left it. The host's own MXCSR and x87 state are defaults afterwards.
void run_stub(const SimdPlan& plan, unsigned slot, StubFrame& frame);

}  // namespace bulkhead::engine::dbt
