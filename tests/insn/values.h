// Register and memory contents that are likely to matter.
#pragma once
#include "tests/insn/case.h"
#include "tests/insn/random.h"

namespace bulkhead::insn {

u64 random_integer(Random& random);
// One 64-bit lane: integers, or one double, or two floats; often special ones.
u64 random_lane(Random& random);
void random_registers(Random& random, Registers& out);

}  // namespace bulkhead::insn
