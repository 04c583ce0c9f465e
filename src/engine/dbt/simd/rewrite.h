// The bytes of an instruction changed so that the host can run it in 64-bit mode on moved operands.
#pragma once
#include <Zydis/Zydis.h>

#include <array>

#include "engine/dbt/front/insn.h"

namespace bulkhead::engine::dbt {

// A ModRM memory operand becomes [rsi]; a general register in ModRM.rm becomes RAX, one in ModRM.reg RDX (of the same
// width). Segment, address-size and LOCK prefixes go. Returns the new length, at most 15.
u8 rewrite_for_host(const Insn& insn, const ZydisDecodedInstruction& raw, const ZydisDecodedOperand* operands,
                    std::array<u8, 15>& out);

}  // namespace bulkhead::engine::dbt
