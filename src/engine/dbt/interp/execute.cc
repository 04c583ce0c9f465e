// One decoded instruction: dispatch, faults and exits, traps after it.
#include <Zydis/Mnemonic.h>

#include <array>

#include "engine/dbt/interp/end.h"
#include "engine/dbt/interp/handlers.h"
#include "engine/dbt/interp/interp.h"
#include "engine/dbt/interp/ops.h"
#include "engine/dbt/simd/simd.h"

namespace bulkhead::engine::dbt {
namespace {

StepResult simd_or_undefined(Cpu& cpu, const Insn& insn) {
  if (!is_simd(insn)) cpu.raise(kUd);
  return execute_simd(cpu, insn);
}

constexpr auto kHandlers = [] {
  std::array<Handler, ZYDIS_MNEMONIC_MAX_VALUE + 1> table{};
  for (Handler& handler : table) handler = simd_or_undefined;
  table[ZYDIS_MNEMONIC_INVALID] = op_undefined;
#define BH_INSN(mnemonic, handler) table[ZYDIS_MNEMONIC_##mnemonic] = handler;
#include "engine/dbt/interp/handlers.inc"
#undef BH_INSN
  return table;
}();

bool is_iret(const Insn& insn) {
  return insn.mnemonic == ZYDIS_MNEMONIC_IRETQ || insn.mnemonic == ZYDIS_MNEMONIC_IRETD ||
         insn.mnemonic == ZYDIS_MNEMONIC_IRET;
}

void end_interrupt_shadow(Cpu& cpu) {
  cpu.s.interrupt_shadow = false;
  cpu.interrupts_may_be_deliverable();
}

// Single-step and data breakpoints after a completed instruction. RF ends with it, unless it is a repetition that goes
// on.
StepResult traps_after(Cpu& cpu, const Insn& insn, StepResult result, u64 rip, u64 rflags) {
  const auto trap = cpu.debug_trap_after(rflags & kTf);
  if (result == StepResult::kShutdown || result == StepResult::kTrap) return result;
  if (result == StepResult::kBranch && insn.rep != RepKind::kNone && cpu.s.rip == rip) cpu.s.rflags |= rflags & kRf;
  // After MOV SS and POP SS nothing comes between them and the next instruction.
  const bool held = cpu.s.interrupt_shadow && insn.mnemonic != ZYDIS_MNEMONIC_STI;
  if (!trap || held) return result;
  cpu.s.halted = false;
  return cpu.deliver(*trap);
}

StepResult execute_debugged(Cpu& cpu, const Insn& insn) {
  const u64 rip = cpu.s.rip, rflags = cpu.s.rflags;
  if (cpu.debug_active()) cpu.check_instruction_breakpoint();
  const StepResult result = execute_unguarded(cpu, insn);
  return traps_after(cpu, insn, result, rip, rflags);
}

}  // namespace

StepResult execute_unguarded(Cpu& cpu, const Insn& insn) {
  const bool shadow = cpu.s.interrupt_shadow;
  const StepResult result = kHandlers[insn.mnemonic](cpu, insn);
  cpu.instruction_done();
  if (shadow) [[unlikely]]
    end_interrupt_shadow(cpu);
  return result;
}

StepResult execute_guarded(Cpu& cpu, const Insn& insn) {
  if (cpu.debug_active() || (cpu.s.rflags & kRf)) [[unlikely]]
    return execute_debugged(cpu, insn);
  const StepResult result = execute_unguarded(cpu, insn);
  if (result != StepResult::kNext && (cpu.debug_active() || is_iret(insn))) [[unlikely]]
    return traps_after(cpu, insn, result, cpu.s.rip, 0);
  return result;
}

StepResult end_abandoned(Cpu& cpu) {
  if (cpu.escape_kind == Escape::kExit) return StepResult::kExit;
  if (cpu.s.interrupt_shadow) end_interrupt_shadow(cpu);
  const Fault fault = cpu.fault;
  return cpu.deliver(fault);
}

StepResult execute(Cpu& cpu, const Insn& insn) {
  BH_GUARD(cpu) { return execute_guarded(cpu, insn); }
  return end_abandoned(cpu);
}

}  // namespace bulkhead::engine::dbt
