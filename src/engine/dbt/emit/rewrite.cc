#include "engine/dbt/emit/rewrite.h"

#include <Zydis/DecoderTypes.h>

namespace bulkhead::engine::dbt {
namespace {

// [SDM-2A §2.1-2.3, §2.6]: which bits extend which field.
struct Extension {
  bool w = false, r = false, x = false, b = false;
};

bool extends(int number) { return (number & 8) != 0; }

Extension extension_of(const Rewrite& how, Extension old) {
  Extension now = old;
  if (how.modrm_reg >= 0) now.r = extends(how.modrm_reg);
  if (how.memory_base >= 0) {
    now.x = false;
    now.b = extends(how.memory_base);
  } else if (how.rm_slot >= 0) {
    now.x = now.b = false;
  } else if (how.modrm_rm >= 0) {
    now.b = extends(how.modrm_rm);
  } else if (how.opcode_reg >= 0) {
    now.b = extends(how.opcode_reg);
  }
  return now;
}

// EVEX takes the long displacement: the unit of its short one depends on the instruction.
u8 mod_of(const Insn& insn, const Rewrite& how) {
  if (how.memory_disp == 0) return 0;
  return insn.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX ? 0x80 : 0x40;
}

// Memory bases are never RSP, RBP, R12 or R13, which would mean something else here.
void put_modrm(const Insn& insn, const Rewrite& how, HostCode& out) {
  if (how.rm_slot >= 0) {
    const u8 reg =
        how.modrm_reg >= 0 ? static_cast<u8>((how.modrm_reg & 7) << 3) : insn.bytes[insn.modrm_offset] & 0x38;
    out.put(0x44 | reg);  // [SIB + disp8]
    out.put(0x24);        // RSP, no index
    out.put(static_cast<u8>(how.rm_slot));
    return;
  }
  u8 modrm = insn.bytes[insn.modrm_offset];
  if (how.modrm_reg >= 0) modrm = static_cast<u8>((modrm & ~0x38) | (how.modrm_reg & 7) << 3);
  if (how.memory_base >= 0)
    modrm = static_cast<u8>((modrm & 0x38) | (how.memory_base & 7) | mod_of(insn, how));
  else if (how.modrm_rm >= 0)
    modrm = static_cast<u8>((modrm & ~7) | (how.modrm_rm & 7));
  out.put(modrm);
  if (how.memory_base < 0) return;
  const unsigned disp_size = mod_of(insn, how) == 0x80 ? 4 : mod_of(insn, how) == 0x40 ? 1 : 0;
  for (unsigned i = 0; i < disp_size; ++i) out.put(static_cast<u8>(static_cast<i32>(how.memory_disp) >> (8 * i)));
}

// Where ModRM, SIB and displacement end and immediates (or the register in an IS4 byte) begin.
unsigned tail_of(const Insn& insn) {
  if (insn.modrm_offset == 0) return insn.imm_offset != 0 ? insn.imm_offset : insn.length;
  const u8 modrm = insn.bytes[insn.modrm_offset];
  const bool sib = (modrm >> 6) != 3 && (modrm & 7) == 4;
  return insn.modrm_offset + 1u + (sib ? 1u : 0u) + insn.disp_size;
}

// Opcode bytes from `opcode_offset`, ModRM, and what follows the displacement.
void put_body(const Insn& insn, const Rewrite& how, unsigned opcode_offset, HostCode& out) {
  const unsigned tail = tail_of(insn);
  const unsigned opcode_end = insn.modrm_offset != 0 ? insn.modrm_offset : tail;
  for (unsigned i = opcode_offset; i < opcode_end; ++i) out.put(insn.bytes[i]);
  if (how.opcode_reg >= 0) {
    u8& last = out.bytes[out.length - 1];
    last = static_cast<u8>((last & ~7) | (how.opcode_reg & 7));
  }
  if (insn.modrm_offset != 0) put_modrm(insn, how, out);
  for (unsigned i = tail; i < insn.length; ++i) out.put(insn.bytes[i]);
}

bool has_high_byte_register(const Insn& insn) {
  for (unsigned i = 0; i < insn.operand_count; ++i)
    if (insn.operands[i].reg_class == RegisterClass::kGpr8High) return true;
  return false;
}

bool rewrite_legacy(const Insn& insn, const Rewrite& how, HostCode& out) {
  for (unsigned i = 0; i < insn.prefix_end; ++i) {
    const u8 prefix = insn.bytes[i];
    if (prefix == 0x66 || prefix == 0xf2 || prefix == 0xf3 || prefix == 0xf0) out.put(prefix);
  }
  Extension e = extension_of(how, {(insn.rex & 8) != 0, (insn.rex & 4) != 0, (insn.rex & 2) != 0, (insn.rex & 1) != 0});
  // Bits that extend nothing we know of must not make a host register part of it.
  if (insn.modrm_offset == 0 && how.opcode_reg < 0) e.r = e.x = e.b = false;
  if (insn.rex != 0 || e.r || e.x || e.b) {
    if (has_high_byte_register(insn)) return false;
    out.put(static_cast<u8>(0x40 | e.w << 3 | e.r << 2 | e.x << 1 | u8{e.b}));
  }
  put_body(insn, how, insn.prefix_end, out);
  return true;
}

bool rewrite_vex(const Insn& insn, const Rewrite& how, HostCode& out) {
  const u8* vex = &insn.bytes[insn.prefix_end];
  const bool two_byte = vex[0] == 0xc5;
  const u8 last = two_byte ? vex[1] : vex[2];
  Extension old{!two_byte && (last & 0x80) != 0, (vex[1] & 0x80) == 0, !two_byte && (vex[1] & 0x40) == 0,
                !two_byte && (vex[1] & 0x20) == 0};
  const u8 map = two_byte ? 1 : vex[1] & 0x1f;
  const Extension e = extension_of(how, old);
  u8 vvvv = (~last >> 3) & 15;
  if (how.vvvv >= 0) vvvv = static_cast<u8>(how.vvvv);
  out.put(0xc4);
  out.put(static_cast<u8>(!e.r << 7 | !e.x << 6 | !e.b << 5 | map));
  out.put(static_cast<u8>(e.w << 7 | (~vvvv & 15) << 3 | (last & 7)));
  put_body(insn, how, insn.prefix_end + (two_byte ? 2u : 3u), out);
  return true;
}

bool rewrite_evex(const Insn& insn, const Rewrite& how, HostCode& out) {
  const u8* evex = &insn.bytes[insn.prefix_end];
  const Extension e = extension_of(how, {false, (evex[1] & 0x80) == 0, (evex[1] & 0x40) == 0, (evex[1] & 0x20) == 0});
  const bool r_high = how.modrm_reg >= 0 ? false : (evex[1] & 0x10) == 0;
  u8 vvvv = (~evex[2] >> 3) & 15;
  if (how.vvvv >= 0) vvvv = static_cast<u8>(how.vvvv);
  out.put(0x62);
  out.put(static_cast<u8>(!e.r << 7 | !e.x << 6 | !e.b << 5 | !r_high << 4 | (evex[1] & 0x0f)));
  out.put(static_cast<u8>((evex[2] & 0x87) | (~vvvv & 15) << 3));
  out.put(evex[3]);
  put_body(insn, how, insn.prefix_end + 4u, out);
  return true;
}

}  // namespace

bool rewrite(const Insn& insn, const Rewrite& how, HostCode& out) {
  out.length = 0;
  switch (insn.encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_LEGACY:
      return rewrite_legacy(insn, how, out);
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
      return rewrite_vex(insn, how, out);
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
      return rewrite_evex(insn, how, out);
    default:
      return false;
  }
}

}  // namespace bulkhead::engine::dbt
