// The interpreter: every integer and system instruction in every mode, one at a time. Complete and plain: the oracle
// for the translator and its slow path. x87/MMX/SSE/AVX go to simd/ (which spills the vector state first).
#pragma once
#include "engine/dbt/cpu/cpu.h"

namespace bulkhead::engine::dbt {

// Executes `insn`, which lies at s.rip, with faults delivered to the guest. On kNext/kBranch RIP and all state are
// final. Does not look at s.pending. Handles single-step and breakpoints when cpu.debug_active().
StepResult execute(Cpu& cpu, const Insn& insn);

// Fetches, decodes (through a small cache) and executes one instruction at s.rip. Decoding spills the vector state.
StepResult step(Cpu& cpu);

// For execute(): does `insn` without a guard: raises through cpu.raise(). Returns how it ended; RIP already advanced.
StepResult execute_unguarded(Cpu& cpu, const Insn& insn);

}  // namespace bulkhead::engine::dbt
