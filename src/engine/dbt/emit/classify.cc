#include "engine/dbt/emit/classify.h"

#include <Zydis/Zydis.h>

#include <array>

#include "engine/dbt/cpu/flags.h"
#include "engine/dbt/simd/simd.h"

namespace bulkhead::engine::dbt {
namespace {

// One byte per mnemonic, filled once: what to do where the operands allow it.
class KindTable {
 public:
  KindTable() {
    kinds_.fill(InsnKind::kInterpret);
    native_integer();
    special();
    ends();
  }
  InsnKind operator[](u16 mnemonic) const { return kinds_[mnemonic]; }

 private:
  void set(InsnKind kind, std::initializer_list<ZydisMnemonic> mnemonics) {
    for (const ZydisMnemonic mnemonic : mnemonics) kinds_[mnemonic] = kind;
  }
  void native_integer() {
    set(InsnKind::kNative,
        {ZYDIS_MNEMONIC_MOV,        ZYDIS_MNEMONIC_MOVZX, ZYDIS_MNEMONIC_MOVSX,   ZYDIS_MNEMONIC_MOVSXD,
         ZYDIS_MNEMONIC_ADD,        ZYDIS_MNEMONIC_ADC,   ZYDIS_MNEMONIC_SUB,     ZYDIS_MNEMONIC_SBB,
         ZYDIS_MNEMONIC_AND,        ZYDIS_MNEMONIC_OR,    ZYDIS_MNEMONIC_XOR,     ZYDIS_MNEMONIC_CMP,
         ZYDIS_MNEMONIC_TEST,       ZYDIS_MNEMONIC_INC,   ZYDIS_MNEMONIC_DEC,     ZYDIS_MNEMONIC_NEG,
         ZYDIS_MNEMONIC_NOT,        ZYDIS_MNEMONIC_IMUL,  ZYDIS_MNEMONIC_MUL,     ZYDIS_MNEMONIC_DIV,
         ZYDIS_MNEMONIC_IDIV,       ZYDIS_MNEMONIC_SHL,   ZYDIS_MNEMONIC_SHR,     ZYDIS_MNEMONIC_SAR,
         ZYDIS_MNEMONIC_ROL,        ZYDIS_MNEMONIC_ROR,   ZYDIS_MNEMONIC_RCL,     ZYDIS_MNEMONIC_RCR,
         ZYDIS_MNEMONIC_SHLD,       ZYDIS_MNEMONIC_SHRD,  ZYDIS_MNEMONIC_BSWAP,   ZYDIS_MNEMONIC_BSF,
         ZYDIS_MNEMONIC_BSR,        ZYDIS_MNEMONIC_TZCNT, ZYDIS_MNEMONIC_LZCNT,   ZYDIS_MNEMONIC_POPCNT,
         ZYDIS_MNEMONIC_BT,         ZYDIS_MNEMONIC_BTS,   ZYDIS_MNEMONIC_BTR,     ZYDIS_MNEMONIC_BTC,
         ZYDIS_MNEMONIC_XCHG,       ZYDIS_MNEMONIC_XADD,  ZYDIS_MNEMONIC_CMPXCHG, ZYDIS_MNEMONIC_CMPXCHG8B,
         ZYDIS_MNEMONIC_CMPXCHG16B, ZYDIS_MNEMONIC_CBW,   ZYDIS_MNEMONIC_CWDE,    ZYDIS_MNEMONIC_CDQE,
         ZYDIS_MNEMONIC_CWD,        ZYDIS_MNEMONIC_CDQ,   ZYDIS_MNEMONIC_CQO,     ZYDIS_MNEMONIC_MOVBE,
         ZYDIS_MNEMONIC_CRC32,      ZYDIS_MNEMONIC_ADCX,  ZYDIS_MNEMONIC_ADOX,    ZYDIS_MNEMONIC_ANDN,
         ZYDIS_MNEMONIC_BEXTR,      ZYDIS_MNEMONIC_BLSI,  ZYDIS_MNEMONIC_BLSMSK,  ZYDIS_MNEMONIC_BLSR,
         ZYDIS_MNEMONIC_BZHI,       ZYDIS_MNEMONIC_MULX,  ZYDIS_MNEMONIC_PDEP,    ZYDIS_MNEMONIC_PEXT,
         ZYDIS_MNEMONIC_RORX,       ZYDIS_MNEMONIC_SARX,  ZYDIS_MNEMONIC_SHLX,    ZYDIS_MNEMONIC_SHRX,
         ZYDIS_MNEMONIC_MOVNTI,     ZYDIS_MNEMONIC_LAHF,  ZYDIS_MNEMONIC_SAHF,    ZYDIS_MNEMONIC_CLC,
         ZYDIS_MNEMONIC_STC,        ZYDIS_MNEMONIC_CMC,   ZYDIS_MNEMONIC_LFENCE,  ZYDIS_MNEMONIC_MFENCE,
         ZYDIS_MNEMONIC_SFENCE});  // PAUSE is the interpreter's, which yields to whoever is waited for
    for (const ZydisMnemonic mnemonic :
         {ZYDIS_MNEMONIC_CMOVB,  ZYDIS_MNEMONIC_CMOVBE,  ZYDIS_MNEMONIC_CMOVL,  ZYDIS_MNEMONIC_CMOVLE,
          ZYDIS_MNEMONIC_CMOVNB, ZYDIS_MNEMONIC_CMOVNBE, ZYDIS_MNEMONIC_CMOVNL, ZYDIS_MNEMONIC_CMOVNLE,
          ZYDIS_MNEMONIC_CMOVNO, ZYDIS_MNEMONIC_CMOVNP,  ZYDIS_MNEMONIC_CMOVNS, ZYDIS_MNEMONIC_CMOVNZ,
          ZYDIS_MNEMONIC_CMOVO,  ZYDIS_MNEMONIC_CMOVP,   ZYDIS_MNEMONIC_CMOVS,  ZYDIS_MNEMONIC_CMOVZ,
          ZYDIS_MNEMONIC_SETB,   ZYDIS_MNEMONIC_SETBE,   ZYDIS_MNEMONIC_SETL,   ZYDIS_MNEMONIC_SETLE,
          ZYDIS_MNEMONIC_SETNB,  ZYDIS_MNEMONIC_SETNBE,  ZYDIS_MNEMONIC_SETNL,  ZYDIS_MNEMONIC_SETNLE,
          ZYDIS_MNEMONIC_SETNO,  ZYDIS_MNEMONIC_SETNP,   ZYDIS_MNEMONIC_SETNS,  ZYDIS_MNEMONIC_SETNZ,
          ZYDIS_MNEMONIC_SETO,   ZYDIS_MNEMONIC_SETP,    ZYDIS_MNEMONIC_SETS,   ZYDIS_MNEMONIC_SETZ})
      kinds_[mnemonic] = InsnKind::kNative;
  }
  void special() {
    set(InsnKind::kNothing, {ZYDIS_MNEMONIC_NOP, ZYDIS_MNEMONIC_ENDBR64, ZYDIS_MNEMONIC_ENDBR32,
                             ZYDIS_MNEMONIC_PREFETCH, ZYDIS_MNEMONIC_PREFETCHNTA, ZYDIS_MNEMONIC_PREFETCHT0,
                             ZYDIS_MNEMONIC_PREFETCHT1, ZYDIS_MNEMONIC_PREFETCHT2, ZYDIS_MNEMONIC_PREFETCHW});
    set(InsnKind::kLea, {ZYDIS_MNEMONIC_LEA});
    set(InsnKind::kPush, {ZYDIS_MNEMONIC_PUSH});
    set(InsnKind::kPushFlags, {ZYDIS_MNEMONIC_PUSHFQ});
    set(InsnKind::kPop, {ZYDIS_MNEMONIC_POP});
    set(InsnKind::kLeave, {ZYDIS_MNEMONIC_LEAVE});
    set(InsnKind::kJump, {ZYDIS_MNEMONIC_JMP});
    set(InsnKind::kCall, {ZYDIS_MNEMONIC_CALL});
    set(InsnKind::kRet, {ZYDIS_MNEMONIC_RET});
    set(InsnKind::kJrcxz, {ZYDIS_MNEMONIC_JRCXZ});
    set(InsnKind::kCli, {ZYDIS_MNEMONIC_CLI});
    set(InsnKind::kSti, {ZYDIS_MNEMONIC_STI});
    set(InsnKind::kJcc, {ZYDIS_MNEMONIC_JB, ZYDIS_MNEMONIC_JBE, ZYDIS_MNEMONIC_JL, ZYDIS_MNEMONIC_JLE,
                         ZYDIS_MNEMONIC_JNB, ZYDIS_MNEMONIC_JNBE, ZYDIS_MNEMONIC_JNL, ZYDIS_MNEMONIC_JNLE,
                         ZYDIS_MNEMONIC_JNO, ZYDIS_MNEMONIC_JNP, ZYDIS_MNEMONIC_JNS, ZYDIS_MNEMONIC_JNZ,
                         ZYDIS_MNEMONIC_JO, ZYDIS_MNEMONIC_JP, ZYDIS_MNEMONIC_JS, ZYDIS_MNEMONIC_JZ});
  }
  void ends() {
    set(InsnKind::kInterpretEnd,
        {ZYDIS_MNEMONIC_IRET,    ZYDIS_MNEMONIC_IRETD,    ZYDIS_MNEMONIC_IRETQ,   ZYDIS_MNEMONIC_SYSCALL,
         ZYDIS_MNEMONIC_SYSRET,  ZYDIS_MNEMONIC_SYSENTER, ZYDIS_MNEMONIC_SYSEXIT, ZYDIS_MNEMONIC_INT,
         ZYDIS_MNEMONIC_INT3,    ZYDIS_MNEMONIC_INT1,     ZYDIS_MNEMONIC_UD0,     ZYDIS_MNEMONIC_UD1,
         ZYDIS_MNEMONIC_UD2,     ZYDIS_MNEMONIC_HLT,      ZYDIS_MNEMONIC_LOOP,    ZYDIS_MNEMONIC_LOOPE,
         ZYDIS_MNEMONIC_LOOPNE,  ZYDIS_MNEMONIC_JCXZ,     ZYDIS_MNEMONIC_JECXZ,   ZYDIS_MNEMONIC_STAC,
         ZYDIS_MNEMONIC_CLAC,    ZYDIS_MNEMONIC_XSETBV,   ZYDIS_MNEMONIC_LMSW,    ZYDIS_MNEMONIC_INVLPG,
         ZYDIS_MNEMONIC_INVPCID, ZYDIS_MNEMONIC_WRMSR,    ZYDIS_MNEMONIC_VMCALL,  ZYDIS_MNEMONIC_VMMCALL});
  }
  std::array<InsnKind, ZYDIS_MNEMONIC_MAX_VALUE + 1> kinds_;
};

bool is_gpr_class(RegisterClass reg_class) {
  return reg_class >= RegisterClass::kGpr8 && reg_class <= RegisterClass::kGpr64;
}

bool only_known_operands(const Insn& insn) {
  for (unsigned i = 0; i < insn.operand_count; ++i) {
    const Operand& op = insn.operands[i];
    if (op.kind == OperandKind::kFarPointer) return false;
    if (op.kind == OperandKind::kRegister && !is_gpr_class(op.reg_class) && !is_vector_class(op.reg_class) &&
        op.reg_class != RegisterClass::kFlags)
      return false;
    if (op.kind == OperandKind::kMemory && (insn.modrm_offset == 0 || op.size == 0)) return false;
  }
  return true;
}

bool is_gather_or_scatter(u16 mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_VGATHERDPD:
    case ZYDIS_MNEMONIC_VGATHERDPS:
    case ZYDIS_MNEMONIC_VGATHERQPD:
    case ZYDIS_MNEMONIC_VGATHERQPS:
    case ZYDIS_MNEMONIC_VPGATHERDD:
    case ZYDIS_MNEMONIC_VPGATHERDQ:
    case ZYDIS_MNEMONIC_VPGATHERQD:
    case ZYDIS_MNEMONIC_VPGATHERQQ:
    case ZYDIS_MNEMONIC_VSCATTERDPD:
    case ZYDIS_MNEMONIC_VSCATTERDPS:
    case ZYDIS_MNEMONIC_VSCATTERQPD:
    case ZYDIS_MNEMONIC_VSCATTERQPS:
    case ZYDIS_MNEMONIC_VPSCATTERDD:
    case ZYDIS_MNEMONIC_VPSCATTERDQ:
    case ZYDIS_MNEMONIC_VPSCATTERQD:
    case ZYDIS_MNEMONIC_VPSCATTERQQ:
      return true;
    default:
      return false;
  }
}

// An x87 instruction other than those that show or load the environment.
bool is_x87(const Insn& insn) {
  if (insn.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY || insn.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT) return false;
  if (insn.mnemonic == ZYDIS_MNEMONIC_FWAIT) return true;
  if (insn.opcode < 0xd8 || insn.opcode > 0xdf || insn.modrm_offset == 0) return false;
  const u8 modrm = insn.bytes[insn.modrm_offset];
  if ((modrm >> 6) == 3) return true;
  const unsigned extension = (modrm >> 3) & 7;
  if (insn.opcode == 0xd9) return extension != 4 && extension != 6;  // FLDENV, FNSTENV
  if (insn.opcode == 0xdd) return extension != 4 && extension != 6;  // FRSTOR, FNSAVE
  return true;
}

// Vector and x87 instructions that touch nothing but their operands. The excluded ones have implied memory, several
// memory elements, or show the environment (host instruction addresses) to the guest.
bool native_vector(const Insn& insn) {
  bool vector = false;
  for (unsigned i = 0; i < insn.operand_count; ++i) vector |= is_vector_class(insn.operands[i].reg_class);
  if (!vector && is_x87(insn)) return true;
  if (!vector) {
    switch (insn.mnemonic) {
      case ZYDIS_MNEMONIC_LDMXCSR:
      case ZYDIS_MNEMONIC_VLDMXCSR:
      case ZYDIS_MNEMONIC_STMXCSR:
      case ZYDIS_MNEMONIC_VSTMXCSR:
      case ZYDIS_MNEMONIC_VZEROUPPER:
      case ZYDIS_MNEMONIC_VZEROALL:
      case ZYDIS_MNEMONIC_EMMS:
        return true;
      default:
        return false;
    }
  }
  if (insn.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY && insn.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX &&
      insn.encoding != ZYDIS_INSTRUCTION_ENCODING_EVEX)
    return false;
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
      return false;
    default:
      break;
  }
  return !is_gather_or_scatter(insn.mnemonic);
}

bool is_variable_shift(u16 mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
      return true;
    default:
      return false;
  }
}

bool is_multiply_or_divide(u16 mnemonic) {
  return mnemonic == ZYDIS_MNEMONIC_MUL || mnemonic == ZYDIS_MNEMONIC_IMUL || mnemonic == ZYDIS_MNEMONIC_DIV ||
         mnemonic == ZYDIS_MNEMONIC_IDIV;
}

// A shift by zero leaves the flags; by CL that is not known before.
bool may_keep_flags(const Insn& insn) {
  if (!is_variable_shift(insn.mnemonic)) return false;
  for (unsigned i = 0; i < insn.operand_count; ++i)
    if (insn.operands[i].kind == OperandKind::kImmediate) return (insn.imm & (insn.operand_size == 8 ? 63 : 31)) == 0;
  return true;
}

InsnKind refine_branch(const Insn& insn, InsnKind direct, InsnKind indirect) {
  const Operand& target = insn.operands[0];
  if (insn.operand_size == 2) return InsnKind::kInterpretEnd;
  if (target.kind == OperandKind::kRelative) return direct;
  if (target.kind == OperandKind::kRegister && target.size == 8) return indirect;
  if (target.kind == OperandKind::kMemory && target.size == 8 && insn.modrm_offset != 0) return indirect;
  return InsnKind::kInterpretEnd;  // far
}

InsnKind refine_stack(const Insn& insn, InsnKind kind) {
  const Operand& op = insn.operands[0];
  if (insn.operand_size == 2) return InsnKind::kInterpret;
  if (op.kind == OperandKind::kRegister && op.reg_class == RegisterClass::kGpr64) return kind;
  if (kind == InsnKind::kPush && op.kind == OperandKind::kImmediate) return kind;
  if (kind == InsnKind::kPush && op.kind == OperandKind::kMemory && insn.modrm_offset != 0) return kind;
  return InsnKind::kInterpret;
}

bool is_bit_memory(const Insn& insn) {
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
      return insn.operands[0].kind == OperandKind::kMemory && insn.operands[1].kind == OperandKind::kRegister;
    default:
      return false;
  }
}

bool moves_from_segment(const Insn& insn) {
  return insn.mnemonic == ZYDIS_MNEMONIC_MOV && insn.operands[1].reg_class == RegisterClass::kSegment &&
         insn.operands[0].kind == OperandKind::kRegister && insn.operand_size >= 4;
}

}  // namespace

InsnKind classify(const Insn& insn) {
  static const KindTable table;
  const InsnKind kind = table[insn.mnemonic];
  switch (kind) {
    case InsnKind::kJump:
      return refine_branch(insn, InsnKind::kJump, InsnKind::kJumpIndirect);
    case InsnKind::kCall:
      return refine_branch(insn, InsnKind::kCall, InsnKind::kCallIndirect);
    case InsnKind::kRet:
      return insn.opcode == 0xc2 || insn.opcode == 0xc3 ? InsnKind::kRet : InsnKind::kInterpretEnd;
    case InsnKind::kJcc:
      return insn.operand_size == 2 ? InsnKind::kInterpretEnd : kind;
    case InsnKind::kPush:
    case InsnKind::kPop:
      return refine_stack(insn, kind);
    case InsnKind::kLeave:
      return insn.operand_size == 8 ? kind : InsnKind::kInterpret;
    case InsnKind::kLea:
      return insn.operand_size == 2 ? InsnKind::kInterpret : kind;
    case InsnKind::kNative:
      if (insn.mnemonic == ZYDIS_MNEMONIC_MOV && insn.operands[0].reg_class == RegisterClass::kControl)
        return InsnKind::kInterpretEnd;
      if (moves_from_segment(insn)) return InsnKind::kMovFromSegment;
      if (!only_known_operands(insn)) return InsnKind::kInterpret;
      if (is_bit_memory(insn)) return insn.operand_size == 2 ? InsnKind::kInterpret : InsnKind::kBitMemory;
      return kind;
    case InsnKind::kInterpret:
      if (only_known_operands(insn) && native_vector(insn)) return InsnKind::kNative;
      return kind;
    default:
      return kind;
  }
}

bool uses_vector_unit(const Insn& insn) {
  for (unsigned i = 0; i < insn.operand_count; ++i) {
    const RegisterClass c = insn.operands[i].reg_class;
    if (c >= RegisterClass::kX87 && c <= RegisterClass::kMask) return true;
  }
  return is_simd(insn);
}

FlagEffect flag_effect(const Insn& insn, InsnKind kind) {
  constexpr u32 kAll = static_cast<u32>(kArithmeticFlags);
  if (kind == InsnKind::kInterpret || kind == InsnKind::kInterpretEnd || kind == InsnKind::kSti) return {kAll, 0, kAll};
  if (kind == InsnKind::kPushFlags) return {kAll, 0, 0};
  FlagEffect effect;
  effect.reads = insn.flags_read & kAll;
  effect.writes = insn.flags_written & kAll;
  effect.kills = effect.writes;
  if (is_multiply_or_divide(insn.mnemonic)) {
    // The manual leaves most of their flags undefined; hosts leave them as they were, and so do we.
    constexpr u32 kDefined = static_cast<u32>(kCf | kOf);
    const bool divides = insn.mnemonic == ZYDIS_MNEMONIC_DIV || insn.mnemonic == ZYDIS_MNEMONIC_IDIV;
    effect.kills = divides ? 0 : effect.writes & kDefined;
  }
  if (may_keep_flags(insn)) {
    effect.reads |= effect.writes;
    effect.kills = 0;
  }
  return effect;
}

}  // namespace bulkhead::engine::dbt
