// What runs a vCPU's instructions between two looks at its pending events: the translator (emit/), or the interpreter.
#pragma once
#include "engine/dbt/cpu/cpu.h"

namespace bulkhead::engine::dbt {

class BlockRunner {
 public:
  virtual ~BlockRunner() = default;
  // Executes guest code from s.rip until something needs attention:
  //   kBranch, kNext  s.pending is not 0 (or a slice of work is done): the caller looks, then calls again
  //   kExit           cpu.exit is to be handed to the machine
  //   kHalt           HLT was executed, RIP behind it
  //   kShutdown       triple fault
  // Never called while an exit is unanswered. May leave s.fpu_live set. On the vCPU's thread.
  virtual StepResult run(Cpu& cpu) = 0;
};

}  // namespace bulkhead::engine::dbt
