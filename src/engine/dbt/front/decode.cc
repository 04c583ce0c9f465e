#include <Zydis/Zydis.h>

#include <algorithm>

#include "base/bits.h"
#include "engine/dbt/front/insn.h"

namespace bulkhead::engine::dbt {
namespace {

const ZydisDecoder& decoder_for(CodeSize mode) {
  static const auto make = [](ZydisMachineMode machine, ZydisStackWidth width) {
    ZydisDecoder decoder;
    ZydisDecoderInit(&decoder, machine, width);
    // The host and our CPU models are AMD64 as both vendors implement it; these change how some opcodes decode.
    ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_KNC, ZYAN_FALSE);
    ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
    ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_CET, ZYAN_TRUE);
    return decoder;
  };
  static const ZydisDecoder k16 = make(ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
  static const ZydisDecoder k32 = make(ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
  static const ZydisDecoder k64 = make(ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  return mode == CodeSize::k64 ? k64 : mode == CodeSize::k32 ? k32 : k16;
}

struct RegisterName {
  RegisterClass reg_class;
  u8 number;
};

RegisterName name_of(ZydisRegister reg) {
  const u8 id = static_cast<u8>(std::max<int>(0, ZydisRegisterGetId(reg)));
  switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR8:
      if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
        return {RegisterClass::kGpr8High, static_cast<u8>(reg - ZYDIS_REGISTER_AH)};
      if (reg >= ZYDIS_REGISTER_SPL) return {RegisterClass::kGpr8, static_cast<u8>(reg - ZYDIS_REGISTER_SPL + 4)};
      return {RegisterClass::kGpr8, static_cast<u8>(reg - ZYDIS_REGISTER_AL)};
    case ZYDIS_REGCLASS_GPR16:
      return {RegisterClass::kGpr16, id};
    case ZYDIS_REGCLASS_GPR32:
      return {RegisterClass::kGpr32, id};
    case ZYDIS_REGCLASS_GPR64:
      return {RegisterClass::kGpr64, id};
    case ZYDIS_REGCLASS_SEGMENT:
      return {RegisterClass::kSegment, id};
    case ZYDIS_REGCLASS_CONTROL:
      return {RegisterClass::kControl, id};
    case ZYDIS_REGCLASS_DEBUG:
      return {RegisterClass::kDebug, id};
    case ZYDIS_REGCLASS_X87:
      return {RegisterClass::kX87, id};
    case ZYDIS_REGCLASS_MMX:
      return {RegisterClass::kMmx, id};
    case ZYDIS_REGCLASS_XMM:
      return {RegisterClass::kXmm, id};
    case ZYDIS_REGCLASS_YMM:
      return {RegisterClass::kYmm, id};
    case ZYDIS_REGCLASS_ZMM:
      return {RegisterClass::kZmm, id};
    case ZYDIS_REGCLASS_MASK:
      return {RegisterClass::kMask, id};
    case ZYDIS_REGCLASS_FLAGS:
      return {RegisterClass::kFlags, 0};
    case ZYDIS_REGCLASS_IP:
      return {RegisterClass::kIp, 0};
    default:
      return {RegisterClass::kOther, id};
  }
}

u8 segment_number(ZydisRegister reg) { return name_of(reg).number; }

void fill_memory(const ZydisDecodedOperandMem& from, MemoryRef& to) {
  if (from.base == ZYDIS_REGISTER_RIP || from.base == ZYDIS_REGISTER_EIP)
    to.base = kRipBase;
  else if (from.base != ZYDIS_REGISTER_NONE)
    to.base = name_of(from.base).number;
  if (from.index != ZYDIS_REGISTER_NONE) to.index = name_of(from.index).number;
  to.scale = from.scale == 0 ? 1 : from.scale;
  to.disp = from.disp.has_displacement ? from.disp.value : 0;
  if (from.segment != ZYDIS_REGISTER_NONE) to.segment = segment_number(from.segment);
}

OperandField field_of(ZydisOperandEncoding encoding) {
  switch (encoding) {
    case ZYDIS_OPERAND_ENCODING_MODRM_REG:
      return OperandField::kModrmReg;
    case ZYDIS_OPERAND_ENCODING_MODRM_RM:
      return OperandField::kModrmRm;
    case ZYDIS_OPERAND_ENCODING_NDSNDD:
      return OperandField::kVvvv;
    case ZYDIS_OPERAND_ENCODING_OPCODE:
      return OperandField::kOpcode;
    default:
      return OperandField::kOther;
  }
}

void fill_operand(const ZydisDecodedOperand& from, Operand& to, Insn& out) {
  to.size = static_cast<u16>(from.size / 8);
  to.read = (from.actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0;
  to.written = (from.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
  to.conditional_write = (from.actions & ZYDIS_OPERAND_ACTION_CONDWRITE) != 0;
  to.field = field_of(from.encoding);
  to.hidden = from.visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT;
  switch (from.type) {
    case ZYDIS_OPERAND_TYPE_REGISTER: {
      const RegisterName name = name_of(from.reg.value);
      to.kind = OperandKind::kRegister;
      to.reg_class = name.reg_class;
      to.reg = name.number;
      break;
    }
    case ZYDIS_OPERAND_TYPE_MEMORY:
      to.kind = OperandKind::kMemory;
      fill_memory(from.mem, out.mem);
      break;
    case ZYDIS_OPERAND_TYPE_POINTER:
      to.kind = OperandKind::kFarPointer;
      out.imm = from.ptr.offset;
      out.imm2 = from.ptr.segment;
      break;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
      to.kind = from.imm.is_relative ? OperandKind::kRelative : OperandKind::kImmediate;
      break;
    default:
      break;
  }
}

void fill_immediates(const ZydisDecodedInstruction& from, const ZydisDecodedOperand* operands, Insn& out) {
  const auto& raw = from.raw;
  if (raw.imm[0].size != 0) {
    out.imm_offset = raw.imm[0].offset;
    out.imm_size = raw.imm[0].size / 8;
  }
  bool first = true;
  for (unsigned i = 0; i < from.operand_count_visible; ++i) {
    if (operands[i].type != ZYDIS_OPERAND_TYPE_IMMEDIATE) continue;
    if (first)
      out.imm = operands[i].imm.value.u;
    else
      out.imm2 = static_cast<u16>(operands[i].imm.value.u);
    first = false;
  }
}

u8 prefix_end_of(const ZydisDecodedInstruction& from) {
  switch (from.encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
      return from.raw.vex.offset;
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
      return from.raw.evex.offset;
    case ZYDIS_INSTRUCTION_ENCODING_XOP:
      return from.raw.xop.offset;
    default:
      return from.raw.prefix_count;
  }
}

void fill_prefixes(const ZydisDecodedInstruction& from, Insn& out) {
  out.lock = (from.attributes & ZYDIS_ATTRIB_HAS_LOCK) != 0;
  if (from.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE)) out.rep = RepKind::kRep;
  if (from.attributes & ZYDIS_ATTRIB_HAS_REPNE) out.rep = RepKind::kRepne;
  out.prefix_end = prefix_end_of(from);
  if (from.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && (from.attributes & ZYDIS_ATTRIB_HAS_REX))
    out.rex = out.bytes[from.raw.rex.offset];
}

// Prefixes that select the segment of instructions without a ModRM memory operand (strings, XLAT).
u8 override_segment(const ZydisDecodedInstruction& from, u8 otherwise) {
  if (from.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_FS) return 4;
  if (from.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_GS) return 5;
  if (from.machine_mode == ZYDIS_MACHINE_MODE_LONG_64) return otherwise;
  if (from.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_CS) return 1;
  if (from.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_SS) return 2;
  if (from.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_DS) return 3;
  if (from.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_ES) return 0;
  return otherwise;
}

// LOCK on an instruction that can't take it is #UD; Zydis says so as a decoding error.
DecodeStatus status_of(ZyanStatus status, std::size_t available) {
  switch (status) {
    case ZYDIS_STATUS_NO_MORE_DATA:
      return available >= 15 ? DecodeStatus::kTooLong : DecodeStatus::kNeedMoreBytes;
    case ZYDIS_STATUS_INSTRUCTION_TOO_LONG:
      return DecodeStatus::kTooLong;
    default:
      return DecodeStatus::kInvalid;
  }
}

// SIB without base: Zydis 4.0 names R13D as the base when the address size is 32 bits.
void forget_false_base(const ZydisDecodedInstruction& decoded, Insn& out) {
  const auto& raw = decoded.raw;
  if (!(decoded.attributes & ZYDIS_ATTRIB_HAS_SIB) || raw.modrm.mod != 0 || raw.sib.base != 5) return;
  out.mem.base = kNoRegister;
  out.mem.disp = raw.disp.value;
}

// F3 90 with REX.B is no PAUSE but XCHG R8, RAX with a prefix that means nothing; Zydis 4.0 does not see the
// difference [SDM-2B XCHG].
bool is_false_pause(const ZydisDecodedInstruction& decoded) {
  return decoded.mnemonic == ZYDIS_MNEMONIC_PAUSE && (decoded.attributes & ZYDIS_ATTRIB_HAS_REX) && decoded.raw.rex.B;
}
DecodeStatus decode_false_pause(std::span<const u8> bytes, unsigned length, Insn& out) {
  std::array<u8, 15> plain{};
  std::copy_n(bytes.begin(), length, plain.begin());
  std::replace(plain.begin(), plain.begin() + length, u8{0xf3}, u8{0x3e});
  const DecodeStatus status = decode(CodeSize::k64, {plain.data(), length}, out);
  std::copy_n(bytes.begin(), length, out.bytes.begin());
  return status;
}

}  // namespace

DecodeStatus decode(CodeSize mode, std::span<const u8> bytes, Insn& out) {
  out = Insn{};
  out.mode = mode;
  const ZydisDecoder& decoder = decoder_for(mode);
  ZydisDecoderContext context;
  ZydisDecodedInstruction decoded;
  const ZyanStatus status = ZydisDecoderDecodeInstruction(&decoder, &context, bytes.data(), bytes.size(), &decoded);
  if (!ZYAN_SUCCESS(status)) return status_of(status, bytes.size());

  if (is_false_pause(decoded)) return decode_false_pause(bytes, decoded.length, out);

  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
  const u8 visible = decoded.operand_count_visible;
  if (!ZYAN_SUCCESS(ZydisDecoderDecodeOperands(&decoder, &context, &decoded, operands, visible)))
    return DecodeStatus::kInvalid;

  out.mnemonic = static_cast<u16>(decoded.mnemonic);
  out.length = decoded.length;
  std::copy_n(bytes.begin(), decoded.length, out.bytes.begin());
  out.operand_size = decoded.operand_width / 8;
  out.address_size = decoded.address_width / 8;
  out.encoding = static_cast<u8>(decoded.encoding);
  out.opcode_map = static_cast<u8>(decoded.opcode_map);
  out.opcode = decoded.opcode;
  out.mem.segment = override_segment(decoded, 3);
  out.operand_count = std::min<u8>(visible, static_cast<u8>(out.operands.size()));
  for (unsigned i = 0; i < out.operand_count; ++i) fill_operand(operands[i], out.operands[i], out);
  forget_false_base(decoded, out);
  fill_immediates(decoded, operands, out);
  fill_prefixes(decoded, out);
  if (decoded.attributes & ZYDIS_ATTRIB_HAS_MODRM) out.modrm_offset = decoded.raw.modrm.offset;
  if (decoded.raw.disp.size != 0) {
    out.disp_offset = decoded.raw.disp.offset;
    out.disp_size = decoded.raw.disp.size / 8;
  }
  if (decoded.cpu_flags != nullptr) {
    out.flags_read = decoded.cpu_flags->tested;
    out.flags_written = decoded.cpu_flags->modified | decoded.cpu_flags->set_0 | decoded.cpu_flags->set_1 |
                        decoded.cpu_flags->undefined;
  }
  return DecodeStatus::kOk;
}

}  // namespace bulkhead::engine::dbt
