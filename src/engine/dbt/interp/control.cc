// Jumps, calls, returns, loops, software interrupts, fast system calls.
#include "engine/dbt/interp/extensions.h"
#include "engine/dbt/interp/handlers.h"
#include "engine/dbt/interp/ops.h"
#include "engine/dbt/interp/stack.h"

namespace bulkhead::engine::dbt {
namespace {

u64 relative_target(Cpu& cpu, const Insn& insn) { return checked_target(cpu, insn, next_rip(cpu, insn) + insn.imm); }

u64 near_target(Cpu& cpu, const Insn& insn) {
  if (insn.operands[0].kind == OperandKind::kRelative) return relative_target(cpu, insn);
  switch (branch_size(insn)) {
    case 2:
      return checked_target(cpu, insn, read_operand<u16>(cpu, insn, 0));
    case 4:
      return checked_target(cpu, insn, read_operand<u32>(cpu, insn, 0));
    default:
      return checked_target(cpu, insn, read_operand<u64>(cpu, insn, 0));
  }
}

// 9A/EA ptr16:16/32 and FF /3, FF /5 m16:16/32/64.
bool is_far(const Insn& insn) {
  if (insn.operands[0].kind == OperandKind::kFarPointer) return true;
  if (insn.opcode != 0xff) return false;
  const unsigned reg = (insn.bytes[insn.modrm_offset] >> 3) & 7;
  return reg == 3 || reg == 5;
}

struct FarPointer {
  u16 selector;
  u64 offset;
  unsigned size;  // of the offset
};
FarPointer far_target(Cpu& cpu, const Insn& insn) {
  const unsigned size = insn.operand_size;
  if (insn.operands[0].kind == OperandKind::kFarPointer) return {insn.imm2, insn.imm & mask_for_size(size), size};
  const u64 linear = cpu.linear_of(insn, size + 2, Access::kRead);
  const u64 offset = cpu.load(linear, size);
  return {static_cast<u16>(cpu.load(linear + size, 2)), offset, size};
}

u64 count_mask(const Insn& insn) { return mask_for_size(insn.address_size); }

}  // namespace

StepResult op_jmp(Cpu& cpu, const Insn& insn) {
  if (!is_far(insn)) return branch(cpu, near_target(cpu, insn));
  const FarPointer target = far_target(cpu, insn);
  cpu.far_jump(target.selector, target.offset, target.size);
  return StepResult::kBranch;
}

StepResult op_call(Cpu& cpu, const Insn& insn) {
  if (is_far(insn)) {
    const FarPointer target = far_target(cpu, insn);
    cpu.far_call(target.selector, target.offset, target.size, next_rip(cpu, insn));
    return StepResult::kBranch;
  }
  const u64 target = near_target(cpu, insn);
  const unsigned size = branch_size(insn);
  cpu.push(next_rip(cpu, insn) & mask_for_size(size), size);
  return branch(cpu, target);
}

StepResult op_ret(Cpu& cpu, const Insn& insn) {
  const u16 extra = insn.operand_count != 0 && insn.imm_size != 0 ? static_cast<u16>(insn.imm) : 0;
  if (insn.opcode == 0xca || insn.opcode == 0xcb) {
    cpu.far_return(insn.operand_size, extra);
    return StepResult::kBranch;
  }
  const unsigned size = branch_size(insn);
  const u64 target = checked_target(cpu, insn, peek(cpu, size));
  cpu.set_stack_pointer(cpu.stack_pointer() + size + extra);
  return branch(cpu, target);
}

StepResult op_jcc(Cpu& cpu, const Insn& insn) {
  if (!condition(cpu.s.rflags, insn.opcode & 15)) return next(cpu, insn);
  return branch(cpu, relative_target(cpu, insn));
}

StepResult op_jcxz(Cpu& cpu, const Insn& insn) {
  if (cpu.s.gpr[kRcx] & count_mask(insn)) return next(cpu, insn);
  return branch(cpu, relative_target(cpu, insn));
}

// E0 LOOPNE, E1 LOOPE, E2 LOOP.
StepResult op_loop(Cpu& cpu, const Insn& insn) {
  const u64 count = (cpu.s.gpr[kRcx] - 1) & count_mask(insn);
  const bool zero = cpu.s.rflags & kZf;
  const bool taken = count != 0 && (insn.opcode == 0xe2 || zero == (insn.opcode == 0xe1));
  const u64 target = taken ? relative_target(cpu, insn) : 0;
  write_gpr_sized(cpu.s, kRcx, insn.address_size, count);
  return taken ? branch(cpu, target) : next(cpu, insn);
}

// ---- software interrupts
StepResult op_int(Cpu& cpu, const Insn& insn) {
  if (cpu.v8086() && iopl(cpu) < 3) cpu.raise(kGp, 0);
  return cpu.deliver_software_interrupt(static_cast<u8>(insn.imm), next_rip(cpu, insn), false, false);
}
StepResult op_int3(Cpu& cpu, const Insn& insn) {
  return cpu.deliver_software_interrupt(kBp, next_rip(cpu, insn), true, false);
}
StepResult op_int1(Cpu& cpu, const Insn& insn) {
  return cpu.deliver_software_interrupt(kDb, next_rip(cpu, insn), false, true);
}
StepResult op_into(Cpu& cpu, const Insn& insn) {
  if (!(cpu.s.rflags & kOf)) return next(cpu, insn);
  return cpu.deliver_software_interrupt(kOfVector, next_rip(cpu, insn), true, false);
}

// Signed index outside [memory, memory + size] is #BR.
StepResult op_bound(Cpu& cpu, const Insn& insn) {
  const unsigned size = insn.operand_size;
  const u64 linear = cpu.linear_of(insn, 2 * size, Access::kRead);
  const i64 low = static_cast<i64>(sign_extend(cpu.load(linear, size), size));
  const i64 high = static_cast<i64>(sign_extend(cpu.load(linear + size, size), size));
  const i64 index = static_cast<i64>(sign_extend(cpu.s.gpr[insn.operands[0].reg], size));
  if (index < low || index > high) cpu.raise(kBr);
  return next(cpu, insn);
}

StepResult op_iret(Cpu& cpu, const Insn& insn) {
  cpu.iret(insn.operand_size);
  return StepResult::kBranch;
}

// ---- fast system calls
StepResult op_syscall(Cpu& cpu, const Insn& insn) {
  if (cpu.deprivileged) {
    cpu.trap = {Trap::Kind::kSyscall, 0, false, 0, 0, next_rip(cpu, insn)};
    return StepResult::kTrap;
  }
  cpu.syscall(next_rip(cpu, insn));
  return StepResult::kBranch;
}
StepResult op_sysret(Cpu& cpu, const Insn& insn) {
  cpu.sysret((insn.rex & 8) ? 8 : 4);
  return StepResult::kBranch;
}
StepResult op_sysenter(Cpu& cpu, const Insn& insn) {
  require_extension(cpu, Extension::kSysenter);
  if (cpu.deprivileged) {
    cpu.trap = {Trap::Kind::kSysenter, 0, false, 0, 0, next_rip(cpu, insn)};
    return StepResult::kTrap;
  }
  cpu.sysenter();
  return StepResult::kBranch;
}
StepResult op_sysexit(Cpu& cpu, const Insn& insn) {
  require_extension(cpu, Extension::kSysenter);
  cpu.sysexit((insn.rex & 8) ? 8 : 4);
  return StepResult::kBranch;
}

}  // namespace bulkhead::engine::dbt
