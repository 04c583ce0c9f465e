// Instructions that leave the block.
#include <cstddef>

#include "engine/dbt/emit/builder.h"

namespace bulkhead::engine::dbt {

using namespace Xbyak::util;

void BlockBuilder::emit_jcc(const Item& item) {
  if (!flags_in_host_) restore_flags();
  cold_.push_back({.kind = Cold::Kind::kSideExit,
                   .from = jump_later(item.insn.opcode & 15),
                   .target = item.rip + item.insn.length + item.insn.imm,
                   .save_flags = !flags_in_memory_ && item.live_at_target != 0,
                   .conditional = true});
}

// The host's JRCXZ reaches not far: over a jump that goes on, to one that leaves.
void BlockBuilder::emit_jrcxz(const Item& item) {
  keep_flags(item.live_before);
  constexpr u8 kJrcxzOver[] = {0xe3, 2, 0xeb, 5};
  for (const u8 byte : kJrcxzOver) w_.db(byte);
  cold_.push_back(
      {.kind = Cold::Kind::kSideExit, .from = jump_later(), .target = item.rip + item.insn.length + item.insn.imm});
}

void BlockBuilder::emit_call(const Item& item) {
  const u64 next = item.rip + item.insn.length;
  clobber_flags(item.live_before);
  store_constant(stack_to_r8(item, -8, true), next);
  move_rsp(-8);
  jump_to(next + item.insn.imm);
  ended_ = true;
}

void BlockBuilder::emit_call_indirect(const Item& item) {
  const Operand& op = item.insn.operands[0];
  clobber_flags(item.live_before);
  if (op.kind == OperandKind::kMemory) {
    address_to_r8(item.insn, item.rip + item.insn.length, true);
    tlb_r8(8, false, item);
    w_.mov(r9, ptr[r8]);
  } else {
    load_guest(9, op.reg);
  }
  w_.mov(ptr[rsp + scratch_offset(kScratchTarget)], r9);
  store_constant(stack_to_r8(item, -8, true), item.rip + item.insn.length);
  move_rsp(-8);
  w_.mov(r8, ptr[rsp + scratch_offset(kScratchTarget)]);
  jump_to_r8();
  ended_ = true;
}

void BlockBuilder::emit_jump_indirect(const Item& item) {
  const Operand& op = item.insn.operands[0];
  clobber_flags(item.live_before);
  if (op.kind == OperandKind::kMemory) {
    address_to_r8(item.insn, item.rip + item.insn.length, true);
    tlb_r8(8, false, item);
    w_.mov(r8, ptr[r8]);
  } else {
    load_guest(8, op.reg);
  }
  jump_to_r8();
  ended_ = true;
}

void BlockBuilder::emit_ret(const Item& item) {
  clobber_flags(item.live_before);
  const i32 at = stack_to_r8(item, 0, false);
  w_.mov(r8, ptr[r8 + at]);
  move_rsp(8 + (item.insn.imm_size != 0 ? static_cast<i32>(item.insn.imm & 0xffff) : 0));
  jump_to_r8();
  ended_ = true;
}

}  // namespace bulkhead::engine::dbt
