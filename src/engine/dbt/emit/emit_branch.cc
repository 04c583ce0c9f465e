// Instructions that leave the block.
#include <cstddef>

#include "engine/dbt/emit/builder.h"

namespace bulkhead::engine::dbt {

using namespace Xbyak::util;

namespace {
constexpr u32 kTargetOffset = offsetof(CpuState, jit_scratch) + 24;
}

void BlockBuilder::emit_jcc(const Item& item) {
  if (!flags_in_host_) restore_flags();
  auto exit = std::make_unique<Cold>();
  exit->kind = Cold::Kind::kSideExit;
  exit->target = item.rip + item.insn.length + item.insn.imm;
  exit->save_flags = !flags_in_memory_ && item.live_at_target != 0;
  // The condition is the low nibble of the opcode, short and near alike.
  w_.db(0x0f);
  w_.db(0x80 | (item.insn.opcode & 15));
  w_.dd(0);
  u8* const site_end = const_cast<u8*>(w_.getCurr());
  exit->patch = site_end;
  cold_.push_back(std::move(exit));
}

void BlockBuilder::emit_jrcxz(const Item& item) {
  keep_flags(item.live_before);
  Xbyak::Label taken, not_taken;
  auto exit = std::make_unique<Cold>();
  exit->kind = Cold::Kind::kSideExit;
  exit->target = item.rip + item.insn.length + item.insn.imm;
  w_.jrcxz(taken);
  w_.jmp(not_taken, Xbyak::CodeGenerator::T_SHORT);
  w_.L(taken);
  w_.jmp(exit->from, Xbyak::CodeGenerator::T_NEAR);
  w_.L(not_taken);
  cold_.push_back(std::move(exit));
}

void BlockBuilder::emit_call(const Item& item) {
  const u64 next = item.rip + item.insn.length;
  clobber_flags(item.live_before);
  w_.lea(r8, ptr[r11 - 8]);
  tlb_r8(8, true, item);
  w_.mov(r9, next);
  w_.mov(ptr[r8], r9);
  w_.lea(r11, ptr[r11 - 8]);
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
  w_.mov(ptr[rsp + kTargetOffset], r9);
  w_.lea(r8, ptr[r11 - 8]);
  tlb_r8(8, true, item);
  w_.mov(r9, item.rip + item.insn.length);
  w_.mov(ptr[r8], r9);
  w_.lea(r11, ptr[r11 - 8]);
  w_.mov(r8, ptr[rsp + kTargetOffset]);
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
  w_.mov(r8, r11);
  tlb_r8(8, false, item);
  w_.mov(r8, ptr[r8]);
  const u32 popped = 8 + (item.insn.imm_size != 0 ? static_cast<u32>(item.insn.imm & 0xffff) : 0);
  w_.lea(r11, ptr[r11 + popped]);
  jump_to_r8();
  ended_ = true;
}

}  // namespace bulkhead::engine::dbt
