#include "engine/dbt/interp/undefined_flags.h"

#include "engine/dbt/cpu/flags.h"

namespace bulkhead::engine::dbt {
namespace {

constexpr u32 kC = kCf, kP = kPf, kA = kAf, kZ = kZf, kS = kSf, kO = kOf;

// 0..63, or 64 when it is in CL.
unsigned known_count(const Insn& insn) {
  const unsigned mask = insn.operands[0].size == 8 ? 63 : 31;
  switch (insn.opcode) {
    case 0xd0:
    case 0xd1:
      return 1;
    case 0xc0:
    case 0xc1:
    case 0xa4:
    case 0xac:
      return static_cast<unsigned>(insn.imm) & mask;
    default:
      return 64;
  }
}
u32 overflow_unless_by_one(const Insn& insn) { return known_count(insn) == 1 ? 0 : kO; }

u32 double_shift(const Insn& insn) {
  const unsigned count = known_count(insn);
  if (count == 0) return 0;
  if (insn.operands[0].size == 2 && count > 16) return kC | kP | kA | kZ | kS | kO;
  return kA | overflow_unless_by_one(insn);
}

}  // namespace

u32 undefined_flags(const Insn& insn) {
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_TEST:
      return kA;
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR: {
      const unsigned count = known_count(insn);
      const unsigned bits = 8u * insn.operands[0].size;
      return count == 0 ? 0 : kA | overflow_unless_by_one(insn) | (count >= bits ? kC : 0);
    }
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
      return overflow_unless_by_one(insn);
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
      return double_shift(insn);
    case ZYDIS_MNEMONIC_MUL:
    case ZYDIS_MNEMONIC_IMUL:
      return kS | kZ | kA | kP;
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
      return kC | kP | kA | kZ | kS | kO;
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
      return kO | kS | kA | kP;
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR:
      return kC | kO | kS | kA | kP;
    case ZYDIS_MNEMONIC_TZCNT:
    case ZYDIS_MNEMONIC_LZCNT:
      return kO | kS | kA | kP;
    case ZYDIS_MNEMONIC_ANDN:
    case ZYDIS_MNEMONIC_BLSI:
    case ZYDIS_MNEMONIC_BLSMSK:
    case ZYDIS_MNEMONIC_BLSR:
    case ZYDIS_MNEMONIC_BZHI:
      return kA | kP;
    case ZYDIS_MNEMONIC_BEXTR:
      return kS | kA | kP;
    case ZYDIS_MNEMONIC_DAA:
    case ZYDIS_MNEMONIC_DAS:
      return kO;
    case ZYDIS_MNEMONIC_AAA:
    case ZYDIS_MNEMONIC_AAS:
      return kO | kS | kZ | kP;
    case ZYDIS_MNEMONIC_AAM:
    case ZYDIS_MNEMONIC_AAD:
      return kO | kA | kC;
    default:
      return 0;
  }
}

}  // namespace bulkhead::engine::dbt
