// Re-encodes one guest instruction for the host: the same opcode, other registers, and its memory operand as
// [register].
#pragma once
#include <array>

#include "engine/dbt/front/insn.h"

namespace bulkhead::engine::dbt {

// Host register numbers by encoding field; -1 keeps what is there.
struct Rewrite {
  int modrm_reg = -1, modrm_rm = -1, vvvv = -1, opcode_reg = -1;
  int memory_base = -1;  // the ModRM memory operand becomes [memory_base + memory_disp]
  i8 memory_disp = 0;
  int rm_slot = -1;  // the ModRM register operand becomes [rsp + rm_slot], 0..127; legacy encodings only
};

struct HostCode {
  std::array<u8, 24> bytes{};
  unsigned length = 0;
  void put(u8 byte) { bytes[length++] = byte; }
};

// False when the host has no such encoding (AH..BH beside a register that wants REX).
bool rewrite(const Insn& insn, const Rewrite& how, HostCode& out);

}  // namespace bulkhead::engine::dbt
