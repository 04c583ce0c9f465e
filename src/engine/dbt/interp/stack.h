// Stack accesses that do not move SP.
#pragma once
#include "engine/dbt/cpu/cpu.h"

namespace bulkhead::engine::dbt {

// Linear address of SS:sp, sp wrapped to the stack's width.
u64 stack_linear(Cpu& cpu, u64 sp, unsigned size, Access access);
// The value `above` bytes above the top of the stack.
u64 peek(Cpu& cpu, unsigned size, u64 above = 0);

}  // namespace bulkhead::engine::dbt
