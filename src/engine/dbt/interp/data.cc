// Moves between registers and memory, extensions, byte swaps, conditional moves, LEA, XLAT.
#include <bit>

#include "engine/dbt/interp/extensions.h"
#include "engine/dbt/interp/handlers.h"
#include "engine/dbt/interp/ops.h"
#include "engine/dbt/interp/system.h"

namespace bulkhead::engine::dbt {
namespace {

template <class T>
T byte_swap(T value) {
  if constexpr (sizeof(T) == 2) return __builtin_bswap16(value);
  if constexpr (sizeof(T) == 4) return __builtin_bswap32(value);
  if constexpr (sizeof(T) == 8) return __builtin_bswap64(value);
}

}  // namespace

// MOV covers general, segment, control and debug registers; the class of an operand tells.
StepResult op_mov(Cpu& cpu, const Insn& insn) {
  const RegisterClass to = insn.operands[0].reg_class, from = insn.operands[1].reg_class;
  if (to == RegisterClass::kSegment) return mov_to_segment(cpu, insn);
  if (from == RegisterClass::kSegment) return mov_from_segment(cpu, insn);
  if (to == RegisterClass::kControl || from == RegisterClass::kControl) return mov_control(cpu, insn);
  if (to == RegisterClass::kDebug || from == RegisterClass::kDebug) return mov_debug(cpu, insn);
  return by_size(insn.operands[0].size, [&]<class T>(T) {
    write_operand<T>(cpu, insn, 0, read_operand<T>(cpu, insn, 1));
    return next(cpu, insn);
  });
}

StepResult op_movzx(Cpu& cpu, const Insn& insn) {
  const u64 value = insn.operands[1].size == 1 ? read_operand<u8>(cpu, insn, 1) : read_operand<u16>(cpu, insn, 1);
  write_gpr_sized(cpu.s, insn.operands[0].reg, insn.operands[0].size, value);
  return next(cpu, insn);
}

// MOVSX and MOVSXD.
StepResult op_movsx(Cpu& cpu, const Insn& insn) {
  u64 value = 0;
  switch (insn.operands[1].size) {
    case 1:
      value = sign_extend(read_operand<u8>(cpu, insn, 1), 1);
      break;
    case 2:
      value = sign_extend(read_operand<u16>(cpu, insn, 1), 2);
      break;
    default:
      value = sign_extend(read_operand<u32>(cpu, insn, 1), 4);
      break;
  }
  write_gpr_sized(cpu.s, insn.operands[0].reg, insn.operands[0].size, value);
  return next(cpu, insn);
}

StepResult op_cbw(Cpu& cpu, const Insn& insn) {
  write_gpr_sized(cpu.s, kRax, 2, sign_extend(cpu.s.gpr[kRax], 1));
  return next(cpu, insn);
}
StepResult op_cwde(Cpu& cpu, const Insn& insn) {
  write_gpr_sized(cpu.s, kRax, 4, sign_extend(cpu.s.gpr[kRax], 2));
  return next(cpu, insn);
}
StepResult op_cdqe(Cpu& cpu, const Insn& insn) {
  cpu.s.gpr[kRax] = sign_extend(cpu.s.gpr[kRax], 4);
  return next(cpu, insn);
}
// CWD, CDQ, CQO: the sign of the accumulator into all of the data register.
static StepResult spread_sign(Cpu& cpu, const Insn& insn, unsigned size) {
  const bool negative = bit(cpu.s.gpr[kRax], 8 * size - 1);
  write_gpr_sized(cpu.s, kRdx, size, negative ? ~u64{0} : 0);
  return next(cpu, insn);
}
StepResult op_cwd(Cpu& cpu, const Insn& insn) { return spread_sign(cpu, insn, 2); }
StepResult op_cdq(Cpu& cpu, const Insn& insn) { return spread_sign(cpu, insn, 4); }
StepResult op_cqo(Cpu& cpu, const Insn& insn) { return spread_sign(cpu, insn, 8); }

StepResult op_bswap(Cpu& cpu, const Insn& insn) {
  u64& reg = cpu.s.gpr[insn.operands[0].reg];
  switch (insn.operands[0].size) {
    case 8:
      reg = __builtin_bswap64(reg);
      break;
    case 4:
      reg = __builtin_bswap32(static_cast<u32>(reg));
      break;
    default:
      reg &= ~u64{0xffff};
      break;  // undefined; processors clear the word
  }
  return next(cpu, insn);
}

StepResult op_movbe(Cpu& cpu, const Insn& insn) {
  require_extension(cpu, Extension::kMovbe);
  return by_wide_size(insn.operands[0].size, [&]<class T>(T) {
    write_operand<T>(cpu, insn, 0, byte_swap<T>(read_operand<T>(cpu, insn, 1)));
    return next(cpu, insn);
  });
}

// MOVNTI is an ordinary store to us.
StepResult op_movnti(Cpu& cpu, const Insn& insn) {
  return by_wide_size(insn.operands[0].size, [&]<class T>(T) {
    write_operand<T>(cpu, insn, 0, read_operand<T>(cpu, insn, 1));
    return next(cpu, insn);
  });
}
StepResult op_movdiri(Cpu& cpu, const Insn& insn) {
  require_extension(cpu, Extension::kMovdiri);
  return op_movnti(cpu, insn);
}

// 64 bytes from the memory operand to ES:reg, which must be aligned.
StepResult op_movdir64b(Cpu& cpu, const Insn& insn) {
  require_extension(cpu, Extension::kMovdir64b);
  u64 line[8];
  const u64 source = cpu.linear_of(insn, 64, Access::kRead);
  const u64 offset = cpu.s.gpr[insn.operands[0].reg] & mask_for_size(insn.address_size);
  const u64 dest = cpu.linear(kEs, offset, 64, Access::kWrite);
  if (dest & 63) cpu.raise(kGp, 0);
  cpu.load_bytes(source, line, sizeof(line));
  cpu.store_bytes(dest, line, sizeof(line));
  return next(cpu, insn);
}

StepResult op_lea(Cpu& cpu, const Insn& insn) {
  write_gpr_sized(cpu.s, insn.operands[0].reg, insn.operands[0].size, cpu.effective_address(insn));
  return next(cpu, insn);
}

StepResult op_xlat(Cpu& cpu, const Insn& insn) {
  CpuState& s = cpu.s;
  const u64 offset = (s.gpr[kRbx] + static_cast<u8>(s.gpr[kRax])) & mask_for_size(insn.address_size);
  const u64 value = cpu.load(cpu.linear(static_cast<Seg>(insn.mem.segment), offset, 1, Access::kRead), 1);
  write_gpr_sized(s, kRax, 1, value);
  return next(cpu, insn);
}

// The source is read, and a 32-bit destination zero-extended, whatever the condition.
StepResult op_cmovcc(Cpu& cpu, const Insn& insn) {
  return by_wide_size(insn.operands[0].size, [&]<class T>(T) {
    const T source = read_operand<T>(cpu, insn, 1);
    const T old = read_reg<T>(cpu.s, insn.operands[0]);
    write_reg<T>(cpu.s, insn.operands[0], condition(cpu.s.rflags, insn.opcode & 15) ? source : old);
    return next(cpu, insn);
  });
}

StepResult op_setcc(Cpu& cpu, const Insn& insn) {
  write_operand<u8>(cpu, insn, 0, condition(cpu.s.rflags, insn.opcode & 15));
  return next(cpu, insn);
}

}  // namespace bulkhead::engine::dbt
