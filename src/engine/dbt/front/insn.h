// One decoded guest instruction in a compact form: what the interpreter executes and the translator rewrites.
// decode() uses Zydis and therefore host vector registers: callers on a vCPU thread spill the guest's first.
#pragma once
#include <Zydis/Mnemonic.h>

#include <array>
#include <span>

#include "base/ints.h"

namespace bulkhead::engine::dbt {

enum class CodeSize : u8 { k16 = 2, k32 = 4, k64 = 8 };  // CS.D / CS.L; the default width of addresses

enum class OperandKind : u8 { kNone, kRegister, kMemory, kImmediate, kRelative, kFarPointer };
enum class RegisterClass : u8 {
  kNone,
  kGpr8,
  kGpr8High,
  kGpr16,
  kGpr32,
  kGpr64,    // index 0..15 in encoding order; kGpr8High: 0..3 = AH CH DH BH
  kSegment,  // ES CS SS DS FS GS
  kControl,
  kDebug,
  kX87,
  kMmx,
  kXmm,
  kYmm,
  kZmm,
  kMask,
  kIp,
  kFlags,
  kOther
};

// x87 registers count: their state, like the vectors', is the host units' business.
constexpr bool is_vector_class(RegisterClass reg_class) {
  switch (reg_class) {
    case RegisterClass::kX87:
    case RegisterClass::kMmx:
    case RegisterClass::kXmm:
    case RegisterClass::kYmm:
    case RegisterClass::kZmm:
    case RegisterClass::kMask:
      return true;
    default:
      return false;
  }
}

// Which part of the encoding names an operand.
enum class OperandField : u8 { kOther, kModrmReg, kModrmRm, kVvvv, kOpcode };

struct Operand {
  OperandKind kind = OperandKind::kNone;
  RegisterClass reg_class = RegisterClass::kNone;
  u8 reg = 0;                                        // register number within its class
  u8 read : 1 = 0, written : 1 = 0, hidden : 1 = 0;  // hidden: implied by the opcode, not encoded in ModRM/imm
  u16 size = 0;                                      // bytes
  OperandField field = OperandField::kOther;
  bool conditional_write = false;  // a write that may not happen, so the old value matters
};

inline constexpr u8 kNoRegister = 0xff;
inline constexpr u8 kRipBase = 16;  // MemoryRef::base; disp is already relative to the next instruction

// The (at most one) memory operand with ModRM/moffs addressing; string instructions use their own registers and only
// `segment`.
struct MemoryRef {
  u8 base = kNoRegister;   // 0..15, or kRipBase
  u8 index = kNoRegister;  // GPR 0..15; a vector register for VSIB
  u8 scale = 1;            // 1, 2, 4, 8
  u8 segment = 3;          // effective segment after overrides and defaults: 0..5 = ES CS SS DS FS GS
  i64 disp = 0;            // sign-extended; compressed EVEX displacements already multiplied out
};

enum class RepKind : u8 {
  kNone,
  kRep,
  kRepne
};  // kRep is F3 (REP/REPE), kRepne is F2, as real (not mandatory) prefixes

struct Insn {
  u16 mnemonic = 0;  // ZydisMnemonic; 0 (ZYDIS_MNEMONIC_INVALID) means #UD (see decode)
  u8 length = 0;     // 1..15
  CodeSize mode = CodeSize::k64;
  u8 operand_size = 4;   // effective operand size in bytes: 1, 2, 4 or 8
  u8 address_size = 8;   // 2, 4 or 8
  u8 operand_count = 0;  // entries of `operands`: explicit and visible-implicit, in Intel order
  bool lock = false;
  RepKind rep = RepKind::kNone;
  u8 encoding = 0;    // ZydisInstructionEncoding: legacy, 3DNow, XOP, VEX, EVEX, MVEX
  u8 opcode_map = 0;  // ZydisOpcodeMap
  u8 opcode = 0;
  std::array<Operand, 5> operands{};
  MemoryRef mem;
  // First immediate, sign-extended to 64 bits where the instruction does so. kRelative: offset from the next RIP;
  // kFarPointer: offset.
  u64 imm = 0;
  u16 imm2 = 0;  // second immediate (ENTER's level), or the selector of a far pointer
  // Where things lie in `bytes`, 0 = not there (ModRM can't be at 0).
  u8 modrm_offset = 0, disp_offset = 0, disp_size = 0, imm_offset = 0, imm_size = 0;
  // Offset of what follows the legacy prefixes and REX: the opcode, or VEX, EVEX, XOP.
  u8 prefix_end = 0;
  u8 rex = 0;  // REX byte or 0
  // RFLAGS bits by what the instruction does to them [SDM-1 Appendix A].
  u32 flags_read = 0, flags_written = 0;  // `written` includes undefined results
  std::array<u8, 15> bytes{};

  bool has_memory() const {
    for (unsigned i = 0; i < operand_count; ++i)
      if (operands[i].kind == OperandKind::kMemory) return true;
    return false;
  }
};

enum class DecodeStatus : u8 { kOk, kNeedMoreBytes, kTooLong, kInvalid };  // kTooLong is #GP, kInvalid is #UD

// Decodes the instruction at bytes[0]. kNeedMoreBytes when it runs past the span (the caller then fetches the next
// page).
DecodeStatus decode(CodeSize mode, std::span<const u8> bytes, Insn& out);

}  // namespace bulkhead::engine::dbt
