// What execute() and step() share.
#pragma once
#include "engine/dbt/cpu/cpu.h"

namespace bulkhead::engine::dbt {

// Within a guard: the instruction with its breakpoints and traps.
StepResult execute_guarded(Cpu& cpu, const Insn& insn);
// Behind a guard: delivers the fault or hands on the exit.
StepResult end_abandoned(Cpu& cpu);

}  // namespace bulkhead::engine::dbt
