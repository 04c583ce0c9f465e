// PUSH, POP and what else lives on the stack. Nothing moves SP before the last access worked.
#include "engine/dbt/interp/stack.h"

#include "engine/dbt/interp/handlers.h"
#include "engine/dbt/interp/ops.h"
#include "engine/dbt/interp/system.h"

namespace bulkhead::engine::dbt {

u64 stack_linear(Cpu& cpu, u64 sp, unsigned size, Access access) {
  return cpu.linear(kSs, sp & mask_for_size(cpu.stack_size()), size, access);
}

u64 peek(Cpu& cpu, unsigned size, u64 above) {
  return cpu.load(stack_linear(cpu, cpu.stack_pointer() + above, size, Access::kRead), size);
}

namespace {

void drop(Cpu& cpu, u64 bytes) { cpu.set_stack_pointer(cpu.stack_pointer() + bytes); }

// POP to memory computes its address with the SP that it leaves behind [SDM-2B "POP"].
StepResult pop_memory(Cpu& cpu, const Insn& insn, unsigned size) {
  const u64 value = peek(cpu, size);
  const u64 rsp = cpu.s.gpr[kRsp];
  drop(cpu, size);
  const u64 offset = cpu.effective_address(insn);
  const u64 new_rsp = cpu.s.gpr[kRsp];
  cpu.s.gpr[kRsp] = rsp;
  cpu.store(cpu.linear(static_cast<Seg>(insn.mem.segment), offset, size, Access::kWrite), size, value);
  cpu.s.gpr[kRsp] = new_rsp;
  return next(cpu, insn);
}

}  // namespace

StepResult op_push(Cpu& cpu, const Insn& insn) {
  const unsigned size = insn.operand_size;
  u64 value = 0;
  if (insn.operands[0].reg_class == RegisterClass::kSegment)
    value = cpu.s.seg[insn.operands[0].reg].selector;
  else if (size == 2)
    value = read_operand<u16>(cpu, insn, 0);
  else if (size == 4)
    value = read_operand<u32>(cpu, insn, 0);
  else
    value = read_operand<u64>(cpu, insn, 0);
  cpu.push(value, size);
  return next(cpu, insn);
}

StepResult op_pop(Cpu& cpu, const Insn& insn) {
  const unsigned size = insn.operand_size;
  const Operand& dest = insn.operands[0];
  if (dest.kind == OperandKind::kMemory) return pop_memory(cpu, insn, size);
  const u64 value = peek(cpu, size);
  if (dest.reg_class == RegisterClass::kSegment) {
    const unsigned width = cpu.stack_size();  // loading SS may change it
    const u64 sp = cpu.stack_pointer() + size;
    load_data_segment(cpu, dest.reg, static_cast<u16>(value));
    write_gpr_sized(cpu.s, kRsp, width, sp);
    return next_changed(cpu, insn);
  }
  drop(cpu, size);
  write_gpr_sized(cpu.s, dest.reg, size, value);  // POP RSP: the value wins
  return next(cpu, insn);
}

// AX CX DX BX SP BP SI DI, highest address first.
StepResult op_pusha(Cpu& cpu, const Insn& insn) {
  const unsigned size = insn.operand_size;
  const u64 sp = cpu.stack_pointer();
  cpu.probe_write(stack_linear(cpu, sp - 8 * size, size, Access::kWrite), size);
  for (unsigned i = 0; i < 8; ++i)
    cpu.store(stack_linear(cpu, sp - (i + 1) * size, size, Access::kWrite), size, cpu.s.gpr[i] & mask_for_size(size));
  cpu.set_stack_pointer(sp - 8 * size);
  return next(cpu, insn);
}
StepResult op_popa(Cpu& cpu, const Insn& insn) {
  const unsigned size = insn.operand_size;
  u64 values[8];
  for (unsigned i = 0; i < 8; ++i) values[7 - i] = peek(cpu, size, i * size);
  for (unsigned i = 0; i < 8; ++i)
    if (i != kRsp) write_gpr_sized(cpu.s, i, size, values[i]);
  drop(cpu, 8 * size);
  return next(cpu, insn);
}

StepResult op_pushf(Cpu& cpu, const Insn& insn) {
  if (cpu.v8086() && iopl(cpu) < 3) cpu.raise(kGp, 0);
  cpu.push(cpu.s.rflags & ~(kVm | kRf) & mask_for_size(insn.operand_size), insn.operand_size);
  return next(cpu, insn);
}

StepResult op_popf(Cpu& cpu, const Insn& insn) {
  if (cpu.v8086() && iopl(cpu) < 3) cpu.raise(kGp, 0);
  const u64 value = peek(cpu, insn.operand_size);
  u64 changeable = kArithmeticFlags | kTf | kDf | kNt | kAc | kId;
  if (cpu.s.cpl == 0 && !cpu.v8086()) changeable |= kIopl;
  if (cpu.v8086() || cpu.s.cpl <= iopl(cpu)) changeable |= kIf;
  if (insn.operand_size == 2) changeable &= 0xffff;
  const u64 old = cpu.s.rflags;
  drop(cpu, insn.operand_size);
  if (((old ^ value) & changeable & ~(kArithmeticFlags | kDf | kId | kNt)) == 0) {
    cpu.s.rflags = (old & ~changeable) | (value & changeable);
    return next(cpu, insn);
  }
  cpu.write_rflags(value, changeable);
  return next_changed(cpu, insn);
}

// [SDM-2A "ENTER"]
StepResult op_enter(Cpu& cpu, const Insn& insn) {
  const unsigned size = insn.operand_size;
  const unsigned level = insn.imm2 & 31;
  const u64 old_sp = cpu.stack_pointer();
  u64 sp = old_sp - size;
  cpu.store(stack_linear(cpu, sp, size, Access::kWrite), size, cpu.s.gpr[kRbp] & mask_for_size(size));
  const u64 frame = sp;
  for (unsigned i = 1; i < level; ++i) {
    const u64 outer = cpu.load(stack_linear(cpu, cpu.s.gpr[kRbp] - i * size, size, Access::kRead), size);
    sp -= size;
    cpu.store(stack_linear(cpu, sp, size, Access::kWrite), size, outer);
  }
  if (level > 0) {
    sp -= size;
    cpu.store(stack_linear(cpu, sp, size, Access::kWrite), size, frame & mask_for_size(size));
  }
  sp -= static_cast<u16>(insn.imm);
  cpu.probe_write(stack_linear(cpu, sp, size, Access::kWrite), size);
  // BP gets SP's whole width in the stack's size, and the operand's size otherwise.
  const u64 frame_value =
      (cpu.s.gpr[kRsp] & ~mask_for_size(cpu.stack_size())) | (frame & mask_for_size(cpu.stack_size()));
  write_gpr_sized(cpu.s, kRbp, size, frame_value);
  cpu.set_stack_pointer(sp);
  return next(cpu, insn);
}

StepResult op_leave(Cpu& cpu, const Insn& insn) {
  const unsigned size = insn.operand_size;
  const u64 frame = cpu.s.gpr[kRbp];
  const u64 value = cpu.load(stack_linear(cpu, frame, size, Access::kRead), size);
  cpu.set_stack_pointer(frame + size);
  write_gpr_sized(cpu.s, kRbp, size, value);
  return next(cpu, insn);
}

}  // namespace bulkhead::engine::dbt
