#include "engine/dbt/simd/plan.h"

#include <Zydis/Zydis.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>

#include "engine/dbt/cpu/flags.h"
#include "engine/dbt/simd/features.h"
#include "engine/dbt/simd/rewrite.h"

namespace bulkhead::engine::dbt {
namespace {

bool decode_again(const Insn& insn, ZydisDecodedInstruction& raw, ZydisDecodedOperand* operands) {
  ZydisDecoder decoder;
  const ZydisMachineMode machine = insn.mode == CodeSize::k64   ? ZYDIS_MACHINE_MODE_LONG_64
                                   : insn.mode == CodeSize::k32 ? ZYDIS_MACHINE_MODE_LEGACY_32
                                                                : ZYDIS_MACHINE_MODE_LEGACY_16;
  const ZydisStackWidth stack = insn.mode == CodeSize::k64   ? ZYDIS_STACK_WIDTH_64
                                : insn.mode == CodeSize::k32 ? ZYDIS_STACK_WIDTH_32
                                                             : ZYDIS_STACK_WIDTH_16;
  ZydisDecoderInit(&decoder, machine, stack);
  ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_KNC, ZYAN_FALSE);
  return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, insn.bytes.data(), insn.length, &raw, operands));
}

bool no_fault_suppression(const ZydisDecodedInstruction& raw) {
  // Class E4NF as well [SDM-2], though Zydis 4.0 says otherwise.
  if (raw.mnemonic == ZYDIS_MNEMONIC_VDBPSADBW || raw.mnemonic == ZYDIS_MNEMONIC_VGF2P8AFFINEQB ||
      raw.mnemonic == ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB || raw.mnemonic == ZYDIS_MNEMONIC_VCVTNE2PS2BF16)
    return true;
  switch (raw.meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_E1NF:
    case ZYDIS_EXCEPTION_CLASS_E2NF:
    case ZYDIS_EXCEPTION_CLASS_E3NF:
    case ZYDIS_EXCEPTION_CLASS_E4NF:
    case ZYDIS_EXCEPTION_CLASS_E5NF:
    case ZYDIS_EXCEPTION_CLASS_E6NF:
    case ZYDIS_EXCEPTION_CLASS_E9NF:
    case ZYDIS_EXCEPTION_CLASS_E10NF:
    case ZYDIS_EXCEPTION_CLASS_E11NF:
      return true;
    default:
      return false;
  }
}

u8 vector_number(ZydisRegister reg) { return static_cast<u8>(std::max<int>(0, ZydisRegisterGetId(reg))); }

SimdUnit unit_of(const ZydisDecodedInstruction& raw, const ZydisDecodedOperand* operands) {
  const auto uses = [&](ZydisRegisterClass kind) {
    return std::any_of(operands, operands + raw.operand_count, [&](const ZydisDecodedOperand& operand) {
      return operand.type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(operand.reg.value) == kind;
    });
  };
  switch (raw.meta.isa_set) {
    case ZYDIS_ISA_SET_XSAVE:
    case ZYDIS_ISA_SET_XSAVEOPT:
    case ZYDIS_ISA_SET_XSAVEC:
    case ZYDIS_ISA_SET_XSAVES:
      return SimdUnit::kXsave;
    case ZYDIS_ISA_SET_FXSAVE:
    case ZYDIS_ISA_SET_FXSAVE64:
      return SimdUnit::kFxsave;
    default:
      break;
  }
  if (raw.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX || uses(ZYDIS_REGCLASS_MASK)) return SimdUnit::kEvex;
  if (raw.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX || raw.encoding == ZYDIS_INSTRUCTION_ENCODING_XOP)
    return SimdUnit::kVex;
  if (raw.mnemonic == ZYDIS_MNEMONIC_FWAIT) return SimdUnit::kWait;
  if (raw.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT) return SimdUnit::kX87;
  const bool mmx =
      uses(ZYDIS_REGCLASS_MMX) || raw.mnemonic == ZYDIS_MNEMONIC_EMMS || raw.mnemonic == ZYDIS_MNEMONIC_FEMMS;
  return mmx && !uses(ZYDIS_REGCLASS_XMM) ? SimdUnit::kMmx : SimdUnit::kSse;
}

bool waits_for_x87(const ZydisDecodedInstruction& raw, SimdUnit unit) {
  switch (raw.mnemonic) {
    case ZYDIS_MNEMONIC_FNINIT:
    case ZYDIS_MNEMONIC_FNCLEX:
    case ZYDIS_MNEMONIC_FNSTSW:
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
      return false;
    default:
      return unit == SimdUnit::kX87 || unit == SimdUnit::kWait || unit == SimdUnit::kMmx;
  }
}

void plan_registers(const ZydisDecodedInstruction& raw, const ZydisDecodedOperand* operands, SimdPlan& plan) {
  for (unsigned i = 0; i < raw.operand_count; ++i) {
    const ZydisDecodedOperand& operand = operands[i];
    if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER) continue;
    const ZydisRegister wide = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, operand.reg.value);
    if (wide < ZYDIS_REGISTER_RAX || wide > ZYDIS_REGISTER_R15) continue;
    const u8 guest = static_cast<u8>(wide - ZYDIS_REGISTER_RAX);
    unsigned slot = guest;  // implied ones stay where they are: RAX, RCX, RDX
    if (operand.encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM) slot = 0;
    if (operand.encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG) slot = 2;
    if (slot > 2) continue;
    plan.gpr_in[slot] = guest;
    if (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) plan.gpr_out[slot] = guest;
  }
}

void plan_masked(const ZydisDecodedInstruction& raw, const ZydisDecodedOperand* operands,
                 const ZydisDecodedOperand& memory, SimdPlan& plan) {
  plan.handler = SimdHandler::kMasked;
  plan.element_size = static_cast<u8>(memory.element_size / 8);
  plan.element_count = static_cast<u8>(memory.element_count);
  plan.mask_bits = plan.element_count;
  if (raw.meta.category == ZYDIS_CATEGORY_COMPRESS || raw.meta.category == ZYDIS_CATEGORY_EXPAND) {
    plan.shape = MaskShape::kCompress;
  } else if (raw.avx.broadcast.mode != ZYDIS_BROADCAST_MODE_INVALID) {
    plan.shape = MaskShape::kTuple;
    // A compare's destination is an opmask; its sources then have the width. Conversions count in the wider element.
    const unsigned width = std::max<unsigned>(memory.element_size, operands[0].element_size);
    plan.mask_bits = static_cast<u8>(raw.avx.vector_length / width);
  }
}

void plan_memory(const ZydisDecodedInstruction& raw, const ZydisDecodedOperand* operands, SimdPlan& plan) {
  for (unsigned i = 0; i < raw.operand_count; ++i) {
    const ZydisDecodedOperand& memory = operands[i];
    if (memory.type != ZYDIS_OPERAND_TYPE_MEMORY) continue;
    plan.memory_size = memory.size / 8;
    plan.memory_read = memory.actions & ZYDIS_OPERAND_ACTION_MASK_READ;
    plan.memory_write = memory.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    const bool opmask = raw.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && raw.avx.mask.reg > ZYDIS_REGISTER_K0;
    if (opmask) plan.mask_register = vector_number(raw.avx.mask.reg);
    if (memory.mem.type == ZYDIS_MEMOP_TYPE_VSIB) return;  // plan_vsib
    const bool all_faults = no_fault_suppression(raw);
    if (opmask && (plan.memory_write || !all_faults)) plan_masked(raw, operands, memory, plan);
    plan.probes_all = opmask && all_faults;
    return;
  }
}

void plan_vsib(const ZydisDecodedInstruction& raw, const ZydisDecodedOperand* operands, SimdPlan& plan) {
  const ZydisDecodedOperand* memory = std::find_if(operands, operands + raw.operand_count, [](const auto& operand) {
    return operand.type == ZYDIS_OPERAND_TYPE_MEMORY && operand.mem.type == ZYDIS_MEMOP_TYPE_VSIB;
  });
  if (memory == operands + raw.operand_count) return;
  const bool scatter = memory->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
  const bool vex = raw.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
  // EVEX: destination, mask, memory (or memory, mask, source). VEX: destination, memory, mask.
  const ZydisDecodedOperand& data = operands[scatter ? 2 : 0];
  plan.handler = scatter ? SimdHandler::kScatter : SimdHandler::kGather;
  plan.data_register = vector_number(data.reg.value);
  plan.vector_mask = vex;
  if (vex) plan.mask_register = vector_number(operands[2].reg.value);
  plan.element_size =
      static_cast<u8>(raw.opcode_map == ZYDIS_OPCODE_MAP_0F38 && (vex ? raw.raw.vex.W : raw.raw.evex.W) ? 8 : 4);
  plan.index_size = (raw.opcode & 1) ? 8 : 4;
  plan.vector_size = static_cast<u8>(raw.avx.vector_length / 8);
  plan.element_count = static_cast<u8>(plan.vector_size / std::max(plan.element_size, plan.index_size));
  // VEX: an index register as wide as the data or the other way round, by which is narrower.
  plan.mask_bits = plan.element_count;
}

void plan_special(const ZydisDecodedInstruction& raw, const ZydisDecodedOperand* operands, SimdPlan& plan) {
  switch (raw.mnemonic) {
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ: {
      const ZydisDecodedOperand& memory = operands[plan.memory_write ? 0 : 2];
      const bool wide = raw.mnemonic == ZYDIS_MNEMONIC_VMASKMOVPD || raw.mnemonic == ZYDIS_MNEMONIC_VPMASKMOVQ;
      plan.handler = SimdHandler::kMasked;
      plan.vector_mask = true;
      plan.mask_register = vector_number(operands[1].reg.value);
      plan.element_size = wide ? 8 : 4;
      plan.element_count = plan.mask_bits = static_cast<u8>(memory.size / 8 / plan.element_size);
      break;
    }
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
      plan.handler = SimdHandler::kByteMask;
      plan.data_register = vector_number(operands[0].reg.value);
      plan.mask_register = vector_number(operands[1].reg.value);
      // Zydis lists the destination as hidden operand or first; the two registers are the explicit ones either way.
      plan.vector_mask = raw.mnemonic != ZYDIS_MNEMONIC_MASKMOVQ;
      break;
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
      plan.memory_size = 512;
      break;
    default:
      if (plan.unit == SimdUnit::kXsave) plan.handler = SimdHandler::kXsaveFamily;
  }
}

}  // namespace

void make_plan(const Insn& insn, SimdPlan& plan) {
  plan = SimdPlan{};
  plan.bytes = insn.bytes;
  plan.length = insn.length;
  plan.mode = insn.mode;
  plan.mnemonic = insn.mnemonic;
  ZydisDecodedInstruction raw;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
  if (!decode_again(insn, raw, operands)) return;
  plan.valid = true;
  plan.unit = unit_of(raw, operands);
  plan.features = features_of_isa(raw.meta.isa_set);
  plan.writes_flags = (insn.flags_written & kArithmeticFlags) != 0;
  plan.x87_pointers = plan.unit == SimdUnit::kX87;
  plan.waits = waits_for_x87(raw, plan.unit);
  plan_registers(raw, operands, plan);
  plan_memory(raw, operands, plan);
  plan_vsib(raw, operands, plan);
  plan_special(raw, operands, plan);
  plan.alignment = plan.unit == SimdUnit::kFxsave                     ? 16
                   : plan.memory_size >= 16 && plan.memory_size <= 64 ? plan.memory_size & 0xff
                                                                      : 0;
  if (!std::has_single_bit(plan.alignment)) plan.alignment = 0;
  plan.host_length = rewrite_for_host(insn, raw, operands, plan.host_bytes);
}

PlanSlot find_plan(const Insn& insn) {
  static thread_local const auto cache = std::make_unique<std::array<SimdPlan, kPlanSlots>>();
  u64 low, high;
  std::memcpy(&low, &insn.bytes[0], 8);
  std::memcpy(&high, &insn.bytes[7], 8);
  // Bytes behind the instruction's end must not count.
  if (insn.length < 8) low &= ~u64{0} >> (64 - 8 * insn.length);
  high = insn.length <= 7 ? 0 : high & (~u64{0} >> (64 - 8 * (insn.length - 7)));
  const u64 hash = (low * 0x9e3779b97f4a7c15 + high * 0xc2b2ae3d27d4eb4f + static_cast<u64>(insn.mode)) >> 32;
  const unsigned slot = static_cast<unsigned>(hash % kPlanSlots);
  SimdPlan& plan = (*cache)[slot];
  const bool fresh = plan.length != insn.length || plan.mode != insn.mode ||
                     std::memcmp(plan.bytes.data(), insn.bytes.data(), insn.length) != 0;
  if (fresh) {
    static thread_local u64 serial = 0;
    make_plan(insn, plan);
    plan.serial = ++serial;
  }
  return {plan, slot};
}

}  // namespace bulkhead::engine::dbt
