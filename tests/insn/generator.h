// Makes random cases: valid encodings from all opcode maps, interesting register values, memory operands in and around
// the sandbox.
#pragma once
#include "tests/insn/case.h"

namespace bulkhead::insn {

// The case `index` of the run `seed`: the same one every time. Its code goes to `address`; at most Case::kMaxCode
// bytes.
void generate_case(u64 seed, u64 index, u64 address, Case& out);

}  // namespace bulkhead::insn
