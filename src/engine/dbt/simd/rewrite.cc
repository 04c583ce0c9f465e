#include "engine/dbt/simd/rewrite.h"

#include <algorithm>

namespace bulkhead::engine::dbt {
namespace {

struct Shape {
  bool modrm = false;
  bool memory = false;  // ModRM names memory
  bool gpr_rm = false;
  bool gpr_reg = false;
  bool narrow = false;  // not 64-bit mode: extension bits and W (for general registers) are ignored
};

bool is_gpr(const ZydisDecodedOperand& operand) {
  if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER) return false;
  const ZydisRegister wide = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, operand.reg.value);
  return wide >= ZYDIS_REGISTER_RAX && wide <= ZYDIS_REGISTER_R15;
}

Shape shape_of(const Insn& insn, const ZydisDecodedInstruction& raw, const ZydisDecodedOperand* operands) {
  Shape shape;
  shape.modrm = raw.attributes & ZYDIS_ATTRIB_HAS_MODRM;
  shape.memory = shape.modrm && raw.raw.modrm.mod != 3;
  shape.narrow = insn.mode != CodeSize::k64;
  for (unsigned i = 0; i < raw.operand_count; ++i) {
    if (!is_gpr(operands[i])) continue;
    shape.gpr_rm |= operands[i].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM;
    shape.gpr_reg |= operands[i].encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG;
  }
  return shape;
}

class Writer {
 public:
  explicit Writer(std::array<u8, 15>& out) : out_{out} {}
  void put(u8 byte) {
    if (length_ < out_.size()) out_[length_++] = byte;
  }
  u8 length() const { return length_; }

 private:
  std::array<u8, 15>& out_;
  u8 length_ = 0;
};

bool is_environment(u16 mnemonic) {
  return mnemonic == ZYDIS_MNEMONIC_FLDENV || mnemonic == ZYDIS_MNEMONIC_FNSTENV || mnemonic == ZYDIS_MNEMONIC_FNSAVE ||
         mnemonic == ZYDIS_MNEMONIC_FRSTOR;
}

void legacy_prefixes(const Insn& insn, const ZydisDecodedInstruction& raw, const ZydisDecodedOperand* operands,
                     const Shape& shape, Writer& out) {
  const bool environment = is_environment(insn.mnemonic);
  // Their 14- and 94-byte forms are chosen by the operand size, which a 16-bit code segment has without a prefix.
  if (environment && (operands[0].size == 14 * 8 || operands[0].size == 94 * 8)) out.put(0x66);
  for (unsigned i = 0; i < insn.prefix_end; ++i) {
    const u8 byte = insn.bytes[i];
    if (byte == 0xf2 || byte == 0xf3 || (byte == 0x66 && !environment)) out.put(byte);
  }
  (void)raw;
  u8 rex = insn.rex & 0x08;
  if (!shape.gpr_reg) rex |= insn.rex & 0x04;
  if (!shape.memory && !shape.gpr_rm) rex |= insn.rex & 0x01;
  if (rex) out.put(static_cast<u8>(0x40 | rex));
}

void vex_prefix(const Insn& insn, const ZydisDecodedInstruction& raw, const Shape& shape, Writer& out) {
  const u8* vex = &insn.bytes[raw.raw.vex.offset];
  const bool forget_w = shape.narrow && (shape.gpr_rm || shape.gpr_reg);
  if (vex[0] == 0xc5) {
    out.put(0xc5);
    out.put(static_cast<u8>(vex[1] | (shape.gpr_reg ? 0x80 : 0) | (shape.narrow ? 0xc0 : 0)));
    return;
  }
  u8 first = vex[1], second = vex[2];
  if (shape.memory || shape.gpr_rm) first |= 0x60;
  if (shape.gpr_reg) first |= 0x80;
  if (shape.narrow) {
    first |= 0xe0;
    second |= 0x40;
  }
  if (forget_w) second &= 0x7f;
  out.put(vex[0]);
  out.put(first);
  out.put(second);
}

void evex_prefix(const Insn& insn, const ZydisDecodedInstruction& raw, const Shape& shape, Writer& out) {
  const u8* evex = &insn.bytes[raw.raw.evex.offset];
  u8 first = evex[1], second = evex[2], third = evex[3];
  if (shape.memory || shape.gpr_rm) first |= 0x60;
  if (shape.gpr_reg) first |= 0x90;
  if (shape.narrow) {
    first |= 0xf0;
    second |= 0x40;
    third |= 0x08;
    if (shape.gpr_rm || shape.gpr_reg) second &= 0x7f;
  }
  out.put(0x62);
  out.put(first);
  out.put(second);
  out.put(third);
}

}  // namespace

u8 rewrite_for_host(const Insn& insn, const ZydisDecodedInstruction& raw, const ZydisDecodedOperand* operands,
                    std::array<u8, 15>& bytes) {
  const Shape shape = shape_of(insn, raw, operands);
  Writer out{bytes};
  unsigned opcode_at = insn.prefix_end;
  switch (raw.encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
    case ZYDIS_INSTRUCTION_ENCODING_XOP:  // same layout, other escape byte
      opcode_at = raw.raw.vex.offset + (insn.bytes[raw.raw.vex.offset] == 0xc5 ? 2 : 3);
      vex_prefix(insn, raw, shape, out);
      break;
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
      opcode_at = raw.raw.evex.offset + 4u;
      evex_prefix(insn, raw, shape, out);
      break;
    default:
      legacy_prefixes(insn, raw, operands, shape, out);
  }
  if (!shape.modrm) {
    for (unsigned i = opcode_at; i < insn.length; ++i) out.put(insn.bytes[i]);
    return out.length();
  }
  for (unsigned i = opcode_at; i < raw.raw.modrm.offset; ++i) out.put(insn.bytes[i]);
  u8 modrm = insn.bytes[raw.raw.modrm.offset];
  if (shape.gpr_reg) modrm = static_cast<u8>((modrm & ~0x38) | 2 << 3);
  if (shape.gpr_rm) modrm &= static_cast<u8>(~0x07);
  if (shape.memory) modrm = static_cast<u8>((modrm & 0x38) | 6);
  out.put(modrm);
  if (raw.raw.imm[0].size) {
    for (unsigned i = raw.raw.imm[0].offset; i < insn.length; ++i) {
      // is4: only eight registers exist outside 64-bit mode.
      const bool is4 = raw.operand_count >= 4 && operands[3].encoding == ZYDIS_OPERAND_ENCODING_IS4;
      out.put(static_cast<u8>(insn.bytes[i] & (shape.narrow && is4 ? 0x7f : 0xff)));
    }
  } else if (raw.operand_count >= 4) {
    const auto* is4 = std::find_if(operands, operands + raw.operand_count,
                                   [](const auto& operand) { return operand.encoding == ZYDIS_OPERAND_ENCODING_IS4; });
    if (is4 != operands + raw.operand_count)
      out.put(static_cast<u8>(insn.bytes[insn.length - 1] & (shape.narrow ? 0x7f : 0xff)));
  }
  if (raw.encoding == ZYDIS_INSTRUCTION_ENCODING_3DNOW) out.put(insn.bytes[insn.length - 1]);
  return out.length();
}

}  // namespace bulkhead::engine::dbt
