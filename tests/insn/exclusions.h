// Which instructions a random case may contain.
#pragma once
#include <Zydis/Zydis.h>

namespace bulkhead::insn {

// False for what a test process must not do to itself (system calls, its own segment bases, hypercalls) and for what
// has no one right result (time, random numbers, CPU identity, undefined results).
bool may_run(const ZydisDecodedInstruction& insn, const ZydisDecodedOperand* operands);
// What a case may expect of an instruction.
enum class Presence {
  kThere,    // host and CPU model have it
  kNowhere,  // neither has: #UD on both
  kHidden,   // only the host has it: no test
};
Presence presence(const ZydisDecodedInstruction& insn);

}  // namespace bulkhead::insn
