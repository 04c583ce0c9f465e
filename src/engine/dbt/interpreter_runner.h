// The interpreter alone, one instruction after the other: dbt.mode=interpreter.
#pragma once
#include <atomic>

#include "engine/dbt/cpu/block_runner.h"
#include "engine/dbt/interp/interp.h"

namespace bulkhead::engine::dbt {

class InterpreterRunner final : public BlockRunner {
 public:
  // At least one instruction, even when something is pending: one that was answered by the machine, or that stands
  // behind STI, goes first.
  StepResult run(Cpu& cpu) override {
    u64 steps = 0;
    StepResult result;
    do {
      result = step(cpu);
      ++steps;
    } while ((result == StepResult::kNext || result == StepResult::kBranch) &&
             cpu.s.pending.load(std::memory_order_relaxed) == 0);
    instructions_.store(instructions_.load(std::memory_order_relaxed) + steps, std::memory_order_relaxed);
    return result;
  }
  u64 instructions() const { return instructions_.load(std::memory_order_relaxed); }  // any thread

 private:
  std::atomic<u64> instructions_{0};
};

}  // namespace bulkhead::engine::dbt
