// Instructions that push and pop, and the windows that let neighbours share one look at the TLB.
#include "engine/dbt/emit/builder.h"

namespace bulkhead::engine::dbt {

using namespace Xbyak::util;

void BlockBuilder::plan_windows() {
  windows_.clear();
  for (Item& item : items_) {
    item.on_stack = item.opens_window = false;
    item.window = 0;
  }
  if ((request_.key & kKeyNoWindows) != 0) return;
  StackWindow open;
  std::size_t first = 0;
  i32 rsp = 0;  // as seen from the open window
  const auto close = [&](std::size_t end) {
    if (open.accesses >= 2) {
      windows_.push_back(open);
      items_[first].opens_window = true;
      for (std::size_t i = first; i < end; ++i)
        if (items_[i].on_stack) items_[i].window = static_cast<u8>(windows_.size());
    }
    open = StackWindow{};
  };
  for (std::size_t i = 0; i < items_.size(); ++i) {
    Item& item = items_[i];
    const StackEffect effect = stack_effect(item.insn, item.kind);
    if (effect.accesses) {
      if (open.accesses != 0 && !open.take(rsp + effect.offset, effect.size, effect.writes)) close(i);
      if (open.accesses == 0) {
        first = i;
        rsp = 0;
        open.take(effect.offset, effect.size, effect.writes);
      }
      item.on_stack = true;
      item.stack_at = rsp + effect.offset;
    }
    if (effect.lost) close(i);
    rsp += effect.moves;
  }
  close(items_.size());
}

void BlockBuilder::window_to_r8(const Item& item) {
  if (item.opens_window) {
    const StackWindow& window = windows_[item.window - 1u];
    clobber_flags(item.live_before);
    w_.lea(r8, ptr[r11 + window.low]);
    tlb_r8(static_cast<u32>(window.high - window.low) | kMissWindow | (window.writes ? u32{kMissWrite} : 0), item);
    w_.mov(ptr[rsp + scratch_offset(kScratchWindow)], r8);
    window_ = item.window;
  } else if (r8_window_ != item.window) {
    w_.mov(r8, ptr[rsp + scratch_offset(kScratchWindow)]);
  }
  r8_window_ = item.window;
}

i32 BlockBuilder::stack_to_r8(const Item& item, i32 offset, bool write) {
  if (in_window(item)) {
    window_to_r8(item);
    return window_offset(item);
  }
  clobber_flags(item.live_before);
  w_.lea(r8, ptr[r11 + offset]);
  tlb_r8(8, write, item);
  return 0;
}

void BlockBuilder::store_constant(i32 offset_from_r8, u64 value) {
  if (static_cast<u64>(static_cast<i32>(value)) == value) {
    w_.mov(qword[r8 + offset_from_r8], static_cast<i32>(value));
  } else {
    w_.mov(r9, value);
    w_.mov(ptr[r8 + offset_from_r8], r9);
  }
}

void BlockBuilder::emit_push(const Item& item) {
  const Operand& op = item.insn.operands[0];
  if (op.kind == OperandKind::kMemory) {
    clobber_flags(item.live_before);
    address_to_r8(item.insn, item.rip + item.insn.length, true);
    tlb_r8(8, false, item);
    w_.mov(r9, ptr[r8]);
    w_.mov(ptr[rsp + scratch_offset(kScratchValue)], r9);
  }
  const i32 at = stack_to_r8(item, -8, true);
  if (op.kind == OperandKind::kImmediate) {
    store_constant(at, item.insn.imm);
  } else if (op.kind == OperandKind::kMemory) {
    w_.mov(r9, ptr[rsp + scratch_offset(kScratchValue)]);
    w_.mov(ptr[r8 + at], r9);
  } else if (is_demoted(op.reg)) {
    load_guest(9, op.reg);
    w_.mov(ptr[r8 + at], r9);
  } else {
    w_.mov(ptr[r8 + at], Xbyak::Reg64{host_register(op.reg)});
  }
  move_rsp(-8);
}

void BlockBuilder::emit_push_flags(const Item& item) {
  clobber_flags(item.live_before);
  const i32 at = stack_to_r8(item, -8, true);
  flags_to_r9();
  w_.mov(ptr[r8 + at], r9);
  move_rsp(-8);
}

void BlockBuilder::emit_pop(const Item& item) {
  const unsigned guest = item.insn.operands[0].reg;
  const i32 at = stack_to_r8(item, 0, false);
  move_rsp(8);  // first: POP RSP is what it loads
  if (is_demoted(guest)) {
    w_.mov(r9, ptr[r8 + at]);
    store_guest(guest, 9);
  } else {
    w_.mov(Xbyak::Reg64{host_register(guest)}, ptr[r8 + at]);
  }
}

void BlockBuilder::emit_leave(const Item& item) {
  clobber_flags(item.live_before);
  w_.mov(r8, rbp);
  tlb_r8(8, false, item);
  w_.lea(r11, ptr[rbp + 8]);
  w_.mov(rbp, ptr[r8]);
}

}  // namespace bulkhead::engine::dbt
