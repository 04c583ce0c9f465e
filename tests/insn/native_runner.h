// Runs cases on the bare host CPU, in this process: all registers and the whole vector state are loaded, the code is
// jumped to, and what it leaves is stored. Exceptions come back through signals. Cases must not name memory outside the
// sandbox (generator.h keeps to that); run it in a process that may die.
#pragma once
#include <memory>

#include "tests/insn/case.h"

namespace bulkhead::insn {

std::unique_ptr<CaseRunner> make_native_runner();  // at most one at a time

}  // namespace bulkhead::insn
