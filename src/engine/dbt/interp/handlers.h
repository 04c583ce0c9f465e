// One function per line of handlers.inc: executes one instruction, advances RIP, raises through cpu.raise().
#pragma once
#include "engine/dbt/cpu/cpu.h"

namespace bulkhead::engine::dbt {

#define BH_INSN(mnemonic, handler) StepResult handler(Cpu& cpu, const Insn& insn);
#include "engine/dbt/interp/handlers.inc"
#undef BH_INSN

}  // namespace bulkhead::engine::dbt
