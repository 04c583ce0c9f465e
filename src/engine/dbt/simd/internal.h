// What the files of this folder share; not for others.
#pragma once
#include "engine/dbt/cpu/cpu.h"
#include "engine/dbt/simd/plan.h"
#include "engine/dbt/simd/stub.h"
#include "engine/dbt/simd/xstate.h"

namespace bulkhead::engine::dbt {

// Per thread. Longjmps pass over its users, so nothing of theirs that matters lives on the stack.
struct SimdScratch {
  alignas(64) std::array<std::byte, 1024> bounce;  // the memory operand, at an address congruent to the guest's mod 64
  alignas(64) std::array<std::byte, 4096> state;   // XSAVE image of a result that is not committed yet
  alignas(64) std::array<std::byte, 4096> image;   // guest-format XSAVE area
  alignas(64) std::array<std::byte, 64> vector;    // gather and scatter: data
  std::array<std::byte, 64> index;
  u64 done = 0;  // gather and scatter: elements completed
};
SimdScratch& simd_scratch();

struct SimdCall {
  Cpu& cpu;
  const Insn& insn;
  const SimdPlan& plan;
  unsigned slot;
};

// Runs the stub on the guest's state; with `hold`, results go to scratch.state until commit_held(). Raises what the
// instruction raised.
void run_native(const SimdCall& call, void* memory, bool hold, StubFrame& frame);
// What an instruction that writes memory can change besides: x87, MXCSR.
void commit_held(CpuState& state);
// General registers, flags, x87 pointers; then RIP.
StepResult finish_native(const SimdCall& call, const StubFrame& frame);
StepResult advance(const SimdCall& call);

// Misalignment is found before the page tables are asked. Raises #GP where the instruction wants an aligned operand.
void check_alignment(const SimdCall& call, u64 linear);

// Linear address of the memory operand without any check.
u64 unchecked_linear(const SimdCall& call);
// The mask's value, one bit per element.
u64 mask_value(const SimdCall& call);

StepResult execute_masked(const SimdCall& call);
StepResult execute_byte_mask(const SimdCall& call);
StepResult execute_gather(const SimdCall& call);
StepResult execute_scatter(const SimdCall& call);
StepResult execute_xsave_family(const SimdCall& call);

}  // namespace bulkhead::engine::dbt
