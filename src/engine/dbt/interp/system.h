// Parts of MOV and POP that other files implement.
#pragma once
#include "engine/dbt/cpu/cpu.h"

namespace bulkhead::engine::dbt {

StepResult mov_to_segment(Cpu& cpu, const Insn& insn);    // segment.cc
StepResult mov_from_segment(Cpu& cpu, const Insn& insn);  // segment.cc
StepResult mov_control(Cpu& cpu, const Insn& insn);       // control_registers.cc
StepResult mov_debug(Cpu& cpu, const Insn& insn);         // control_registers.cc

// Loads DS, ES, FS, GS or SS; SS starts the one-instruction interrupt shadow.
void load_data_segment(Cpu& cpu, unsigned seg, u16 selector);
// The shadow after STI, MOV SS and POP SS; a second in a row does not extend it.
void begin_interrupt_shadow(Cpu& cpu);

}  // namespace bulkhead::engine::dbt
