// Runs cases on a vCPU of the built-in engine, in 64-bit user mode with paging; exceptions, and the end of the case,
// arrive in a kernel of sixteen bytes a vector that halts.
#pragma once
#include <functional>
#include <memory>

#include "engine/dbt/cpu/cpu.h"
#include "tests/insn/case.h"

namespace bulkhead::insn {

// Runs the vCPU until it halts, exits or shuts down, and says which.
using RunUntilHalt = std::function<engine::dbt::StepResult(engine::dbt::Cpu&)>;
// Called once with the vCPU; what runs it.
using MakeRun = std::function<RunUntilHalt(engine::dbt::Cpu&)>;

std::unique_ptr<CaseRunner> make_dbt_runner(std::string name, bool exact_flags_at_exceptions, const MakeRun& make);
std::unique_ptr<CaseRunner> make_interpreter_runner();
std::unique_ptr<CaseRunner> make_translator_runner();

}  // namespace bulkhead::insn
