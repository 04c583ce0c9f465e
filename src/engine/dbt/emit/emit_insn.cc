// Instructions that stay within the block.
#include <Zydis/DecoderTypes.h>
#include <Zydis/Mnemonic.h>

#include <algorithm>
#include <cstddef>

#include "engine/dbt/emit/builder.h"
#include "engine/dbt/simd/simd.h"

namespace bulkhead::engine::dbt {

using namespace Xbyak::util;

namespace {

bool is_gpr(const Operand& op) {
  return op.kind == OperandKind::kRegister && op.reg_class >= RegisterClass::kGpr8 &&
         op.reg_class <= RegisterClass::kGpr64;
}

const Operand* memory_operand(const Insn& insn) {
  for (unsigned i = 0; i < insn.operand_count; ++i)
    if (insn.operands[i].kind == OperandKind::kMemory) return &insn.operands[i];
  return nullptr;
}

bool old_value_matters(const Insn& insn, const Operand& op) {
  if (op.read || op.conditional_write || op.size < 4) return true;
  return insn.mnemonic == ZYDIS_MNEMONIC_BSF || insn.mnemonic == ZYDIS_MNEMONIC_BSR;
}

// Scratch registers for demoted operands, each guest register once.
struct Demoted {
  struct Entry {
    u8 guest;
    u8 host;
    bool load, store;
  };
  Entry entries[3];
  unsigned count = 0;
  u8 free[3];
  unsigned free_count = 0;

  bool uses(int host) const {
    return std::any_of(entries, entries + count, [host](const Entry& entry) { return entry.host == host; });
  }
  int host_for(const Insn& insn, const Operand& op) {
    for (unsigned i = 0; i < count; ++i)
      if (entries[i].guest == op.reg) {
        entries[i].load |= old_value_matters(insn, op);
        entries[i].store |= op.written || op.conditional_write;
        return entries[i].host;
      }
    if (count == free_count) return -1;
    entries[count] = {op.reg, free[count], old_value_matters(insn, op), op.written || op.conditional_write};
    return entries[count++].host;
  }
};

void set_field(Rewrite& how, OperandField field, int host) {
  switch (field) {
    case OperandField::kModrmReg:
      how.modrm_reg = host;
      break;
    case OperandField::kModrmRm:
      how.modrm_rm = host;
      break;
    case OperandField::kVvvv:
      how.vvvv = host;
      break;
    case OperandField::kOpcode:
      how.opcode_reg = host;
      break;
    case OperandField::kOther:
      break;
  }
}

// Whether a demoted register operand can be used where it lies, in memory: the same instruction with a memory operand
// must do the same. Narrow writes would leave the upper half of the register as it was, or make the next load wait.
bool usable_in_memory(const Insn& insn, const Operand& op) {
  if (op.field != OperandField::kModrmRm || insn.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) return false;
  if ((op.written || op.conditional_write) && op.size != 8) return false;
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_XCHG:  // would lock
    case ZYDIS_MNEMONIC_XADD:
    case ZYDIS_MNEMONIC_CMPXCHG:
      return false;
    case ZYDIS_MNEMONIC_BT:  // a register offset may reach other memory
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
      return insn.operands[1].kind == OperandKind::kImmediate;
    default:
      return !uses_vector_unit(insn);
  }
}

// The host's registers for the guest's. False: more demoted registers than there are scratch ones.
bool substitute(const Insn& insn, Demoted& demoted, Rewrite& how) {
  for (unsigned i = 0; i < insn.operand_count; ++i) {
    const Operand& op = insn.operands[i];
    if (!is_gpr(op) || op.reg_class == RegisterClass::kGpr8High || op.field == OperandField::kOther) continue;
    if (is_demoted(op.reg) && usable_in_memory(insn, op)) {
      how.rm_slot = static_cast<int>(state_offset_of_gpr(op.reg));
      continue;
    }
    const int host = is_demoted(op.reg) ? demoted.host_for(insn, op) : host_register(op.reg);
    if (host < 0) return false;
    set_field(how, op.field, host);
  }
  return true;
}

// Whether the guest may execute it now; what that depends on is part of the block's key, or drops all blocks when it
// changes.
bool enabled(Cpu& cpu, const Insn& insn) {
  BH_GUARD(cpu) {
    check_simd_enabled(cpu, insn);
    return true;
  }
  return false;
}

}  // namespace

void BlockBuilder::emit_native(const Item& item) {
  const Insn& insn = item.insn;
  if (uses_vector_unit(insn) && !enabled(cpu_, insn)) return emit_interpret(item);
  const Operand* const memory = memory_operand(insn);
  Rewrite how;
  Demoted demoted;
  // R10 is needed for restoring flags, which happens before demoted registers are loaded.
  demoted.free[demoted.free_count++] = 9;
  demoted.free[demoted.free_count++] = 10;
  if (memory == nullptr) demoted.free[demoted.free_count++] = 8;
  if (!substitute(insn, demoted, how)) return emit_interpret(item);
  HostCode code;
  bool through_rdi = false;
  if (memory != nullptr) {
    how.memory_base = 8;
    if (in_window(item)) how.memory_disp = static_cast<i8>(window_offset(item));
    if (!rewrite(insn, how, code)) {  // AH..BH beside [R8]
      how.memory_base = 7;
      through_rdi = true;
      if (!rewrite(insn, how, code)) return emit_interpret(item);
    }
    if (in_window(item)) {
      window_to_r8(item);
    } else {
      clobber_flags(item.live_before);
      address_to_r8(insn, item.rip + insn.length, true);
      tlb_r8(memory->size, memory->written || memory->conditional_write, item);
    }
  } else if (!rewrite(insn, how, code)) {
    return emit_interpret(item);
  }
  if (demoted.uses(8)) r8_window_ = 0;
  want_flags(item);
  for (unsigned i = 0; i < demoted.count; ++i)
    if (demoted.entries[i].load) load_guest(demoted.entries[i].host, demoted.entries[i].guest);
  if (through_rdi) {
    w_.mov(r9, rdi);
    w_.mov(rdi, r8);
  }
  marks_.back().flags_in_host = flags_in_host_;
  write_host_code(code);
  if (through_rdi) w_.mov(rdi, r9);
  for (unsigned i = 0; i < demoted.count; ++i)
    if (demoted.entries[i].store) store_guest(demoted.entries[i].guest, demoted.entries[i].host);
  wrote_flags(item);
}

// BT family with a register offset: the bit may lie far from the operand's address [SDM-2A BT].
void BlockBuilder::emit_bit_memory(const Item& item) {
  const Insn& insn = item.insn;
  const Operand& offset = insn.operands[1];
  const bool wide = offset.size == 8;
  Rewrite how;
  how.modrm_reg = 9;
  how.memory_base = 8;
  HostCode code;
  if (!rewrite(insn, how, code)) return emit_interpret(item);
  clobber_flags(item.live_before);
  address_to_r8(insn, item.rip + insn.length, false);
  load_guest(9, offset.reg);
  if (!wide) w_.movsxd(r9, r9d);
  w_.sar(r9, wide ? 6 : 5);
  w_.lea(r8, ptr[r8 + r9 * (wide ? 8 : 4)]);
  if (insn.address_size == 4) w_.mov(r8d, r8d);
  if (insn.mem.segment >= kFs) {
    w_.mov(r9, ptr[rsp + static_cast<u32>(offsetof(CpuState, seg) + insn.mem.segment * sizeof(Segment) +
                                          offsetof(Segment, base))]);
    w_.add(r8, r9);
  }
  tlb_r8(offset.size, insn.mnemonic != ZYDIS_MNEMONIC_BT, item);
  load_guest(9, offset.reg);
  w_.and_(r9d, wide ? 63 : 31);
  want_flags(item);
  marks_.back().flags_in_host = flags_in_host_;
  write_host_code(code);
  wrote_flags(item);
}

void BlockBuilder::emit_lea(const Item& item) {
  const Insn& insn = item.insn;
  const unsigned guest = insn.operands[0].reg;
  const int target = is_demoted(guest) ? 8 : host_register(guest);
  if (target == 8) r8_window_ = 0;
  address_to(target, insn, item.rip + insn.length);
  if (insn.operand_size == 4) w_.mov(Xbyak::Reg32{target}, Xbyak::Reg32{target});
  if (target == 8) store_guest(guest, 8);
}

// Blocks for supervisor code are made for CPL 0 only, where CLI needs no look at IOPL.
void BlockBuilder::emit_mov_from_segment(const Item& item) {
  const unsigned to = item.insn.operands[0].reg, segment = item.insn.operands[1].reg;
  w_.movzx(
      r9d,
      word[rsp + static_cast<u32>(offsetof(CpuState, seg) + segment * sizeof(Segment) + offsetof(Segment, selector))]);
  store_guest(to, 9);
}

void BlockBuilder::emit_cli(const Item& item) {
  if (request_.space == TlbSpace::kUser) return emit_interpret(item);
  clobber_flags(item.live_before);
  w_.and_(dword[rsp + static_cast<u32>(offsetof(CpuState, rflags))], ~static_cast<u32>(kIf));
}

void BlockBuilder::emit_interpret(const Item& item) {
  keep_flags(item.live_before | item.live_after);
  window_ = r8_window_ = 0;  // the interpreter may take what other vCPUs ask for
  InterpretSite* const site = cache_.allocate_array<InterpretSite>(1);
  site->insn = item.insn;
  site->rip = item.rip;
  site->in_vector_block = uses_vectors_;
  site->shadow_ends_here = item.kind == InsnKind::kSti && &item != &items_.back();
  w_.mov(r8, reinterpret_cast<u64>(site));
  w_.call(thunk(thunks_.interpret));
  flags_in_host_ = false;
  flags_in_memory_ = true;
}

}  // namespace bulkhead::engine::dbt
