#include "engine/dbt/emit/window.h"

#include <Zydis/Mnemonic.h>

#include <algorithm>
#include <limits>

namespace bulkhead::engine::dbt {
namespace {

constexpr i64 kFarthest = 1 << 20;  // a stack pointer that moves further is not followed

bool is_rsp(const Operand& op) {
  return op.kind == OperandKind::kRegister && op.reg == 4 && op.reg_class >= RegisterClass::kGpr8 &&
         op.reg_class <= RegisterClass::kGpr64 && op.reg_class != RegisterClass::kGpr8High;
}

bool writes_rsp(const Insn& insn) {
  for (unsigned i = 0; i < insn.operand_count; ++i)
    if (is_rsp(insn.operands[i]) && (insn.operands[i].written || insn.operands[i].conditional_write)) return true;
  return false;
}

bool near(i64 distance) { return distance > -kFarthest && distance < kFarthest; }

StackEffect access(i32 offset, u32 size, bool writes, i32 moves) {
  return {.accesses = true, .writes = writes, .offset = offset, .size = size, .moves = moves};
}
constexpr StackEffect kLost{.lost = true};

// [rsp + n], whatever the instruction does with it.
StackEffect operand_on_stack(const Insn& insn) {
  const MemoryRef& mem = insn.mem;
  if (mem.base != 4 || mem.index != kNoRegister || mem.segment >= 4 || insn.address_size != 8) return {};
  for (unsigned i = 0; i < insn.operand_count; ++i) {
    const Operand& op = insn.operands[i];
    if (op.kind != OperandKind::kMemory || op.size > kMaxWindow || !near(mem.disp)) continue;
    return access(static_cast<i32>(mem.disp), op.size, op.written || op.conditional_write, 0);
  }
  return {};
}

StackEffect native_effect(const Insn& insn) {
  if (!writes_rsp(insn)) return operand_on_stack(insn);
  const bool adds = insn.mnemonic == ZYDIS_MNEMONIC_ADD, subtracts = insn.mnemonic == ZYDIS_MNEMONIC_SUB;
  const i64 by = static_cast<i64>(insn.imm);
  if ((!adds && !subtracts) || insn.operand_size != 8 || !is_rsp(insn.operands[0]) ||
      insn.operands[1].kind != OperandKind::kImmediate || !near(by))
    return kLost;
  return {.moves = static_cast<i32>(adds ? by : -by)};
}

StackEffect lea_effect(const Insn& insn) {
  if (!is_rsp(insn.operands[0])) return {};
  const MemoryRef& mem = insn.mem;
  if (mem.base != 4 || mem.index != kNoRegister || insn.operand_size != 8 || insn.address_size != 8 || !near(mem.disp))
    return kLost;
  return {.moves = static_cast<i32>(mem.disp)};
}

}  // namespace

StackEffect stack_effect(const Insn& insn, InsnKind kind) {
  switch (kind) {
    case InsnKind::kPush:
    case InsnKind::kPushFlags:
    case InsnKind::kCall:
    case InsnKind::kCallIndirect:
      return access(-8, 8, true, -8);
    case InsnKind::kPop:
      return insn.operands[0].reg == 4 ? kLost : access(0, 8, false, 8);
    case InsnKind::kRet:
      return access(0, 8, false, 8);
    case InsnKind::kNative:
      return native_effect(insn);
    case InsnKind::kLea:
      return lea_effect(insn);
    case InsnKind::kMovFromSegment:
      return is_rsp(insn.operands[0]) ? kLost : StackEffect{};
    case InsnKind::kLeave:
    case InsnKind::kSti:
    case InsnKind::kInterpret:
    case InsnKind::kInterpretEnd:
      return kLost;
    default:
      return {};
  }
}

bool StackWindow::take(i32 offset, u32 size, bool write) {
  const i32 end = offset + static_cast<i32>(size);
  const i32 new_low = accesses == 0 ? offset : std::min(low, offset);
  const i32 new_high = accesses == 0 ? end : std::max(high, end);
  if (new_high - new_low > static_cast<i32>(kMaxWindow)) return false;
  low = new_low;
  high = new_high;
  ++accesses;
  writes |= write;
  return true;
}

}  // namespace bulkhead::engine::dbt
