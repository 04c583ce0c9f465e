// Random instruction bytes, and what Zydis makes of them.
#pragma once
#include <Zydis/Zydis.h>

#include <array>

#include "tests/insn/random.h"

namespace bulkhead::insn {

struct Candidate {
  std::array<u8, 16> bytes{};
  ZydisDecodedInstruction insn;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

// One valid instruction that a test may run. Tries until it finds one.
void random_instruction(Random& random, Candidate& out);
// Decodes out.bytes again after a change. False if that is no instruction any more.
bool decode_candidate(Candidate& out);

}  // namespace bulkhead::insn
