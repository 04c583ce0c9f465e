// What the translator does with an instruction, and what it does to the arithmetic flags.
#pragma once
#include "engine/dbt/front/insn.h"

namespace bulkhead::engine::dbt {

enum class InsnKind : u8 {
  kNative,   // re-emitted with registers and memory operand substituted
  kNothing,  // no effect that a guest can see: NOP, ENDBR64, prefetch
  kLea,
  kMovFromSegment,  // to a register of 4 or 8 bytes
  kBitMemory,       // BT/BTS/BTR/BTC [mem], reg: the register reaches beyond the operand
  kPush,
  kPushFlags,  // PUSHFQ
  kPop,
  kLeave,
  kJump,
  kJumpIndirect,
  kJcc,
  kJrcxz,
  kCall,
  kCallIndirect,
  kRet,
  kCli,
  kSti,           // as kInterpret, where the block goes on behind it
  kInterpret,     // by a call of the interpreter inside the block
  kInterpretEnd,  // the same, and the block ends: it always changes RIP or what blocks depend on
};

InsnKind classify(const Insn& insn);

// Whether it reads or writes x87 or vector state, so that the guest's must be in the host's registers to run it there.
bool uses_vector_unit(const Insn& insn);

// Arithmetic flags that the instruction may read (or may leave as they were), and those that it surely overwrites.
struct FlagEffect {
  u32 reads = 0, kills = 0, writes = 0;
};
FlagEffect flag_effect(const Insn& insn, InsnKind kind);

}  // namespace bulkhead::engine::dbt
