// Segment registers, descriptor tables and the instructions that look at descriptors.
#include <optional>

#include "engine/dbt/interp/handlers.h"
#include "engine/dbt/interp/ops.h"
#include "engine/dbt/interp/system.h"

namespace bulkhead::engine::dbt {
namespace {

// SGDT, SIDT, SLDT, STR, SMSW outside ring 0.
void require_umip(Cpu& cpu) {
  if ((cpu.s.cr4 & kCr4Umip) && cpu.s.cpl > 0) cpu.raise(kGp, 0);
}

void set_zf(CpuState& s, bool on) { s.rflags = (s.rflags & ~kZf) | (on ? kZf : 0); }

// A look that never faults for a bad selector (it does for a page that isn't there).
std::optional<Descriptor> look_up(Cpu& cpu, u16 selector) {
  if (is_null(selector)) return std::nullopt;
  const bool local = selector & 4;
  if (local && (cpu.s.ldtr.unusable() || !cpu.s.ldtr.present())) return std::nullopt;
  const u64 base = local ? cpu.s.ldtr.base : cpu.s.gdtr.base;
  const u32 limit = local ? cpu.s.ldtr.limit : cpu.s.gdtr.limit;
  if ((selector | 7u) > limit) return std::nullopt;
  return Descriptor{cpu.load_system(base + (selector & ~7u), 8), 0, 0};
}

bool visible(const Cpu& cpu, const Descriptor& d, u16 selector) {
  return d.is_conforming() || (cpu.s.cpl <= d.dpl() && rpl_of(selector) <= d.dpl());
}

// System descriptor types that LAR and LSL accept [SDM-2A "LAR", "LSL"].
bool lar_type(const Cpu& cpu, unsigned type) {
  constexpr unsigned kLegacy = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 9 | 1 << 11 | 1 << 12;
  constexpr unsigned kLong = 1 << 2 | 1 << 9 | 1 << 11 | 1 << 12;
  return ((cpu.long_mode() ? kLong : kLegacy) >> type) & 1;
}
bool lsl_type(const Cpu& cpu, unsigned type) {
  constexpr unsigned kLegacy = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 9 | 1 << 11;
  constexpr unsigned kLong = 1 << 2 | 1 << 9 | 1 << 11;
  return ((cpu.long_mode() ? kLong : kLegacy) >> type) & 1;
}

// Stores a selector-like value: memory gets 16 bits, a register its whole operand size, zero-extended.
void store_word(Cpu& cpu, const Insn& insn, u64 value) {
  const Operand& dest = insn.operands[0];
  if (dest.kind == OperandKind::kMemory)
    cpu.store(cpu.linear_of(insn, 2, Access::kWrite), 2, value & 0xffff);
  else
    write_gpr_sized(cpu.s, dest.reg, dest.size, value & mask_for_size(dest.size));
}

StepResult store_table(Cpu& cpu, const Insn& insn, const DescriptorTable& table) {
  require_umip(cpu);
  const unsigned size = insn.mode == CodeSize::k64 ? 8 : 4;
  const u64 linear = cpu.linear_of(insn, size + 2, Access::kWrite);
  cpu.probe_write(linear, size + 2);
  cpu.store(linear, 2, table.limit & 0xffff);
  cpu.store(linear + 2, size, table.base);
  return next(cpu, insn);
}

StepResult load_table(Cpu& cpu, const Insn& insn, DescriptorTable& table) {
  require_cpl0(cpu);
  const unsigned size = insn.mode == CodeSize::k64 ? 8 : 4;
  const u64 linear = cpu.linear_of(insn, size + 2, Access::kRead);
  const u32 limit = static_cast<u32>(cpu.load(linear, 2));
  u64 base = cpu.load(linear + 2, size);
  if (size == 8 && !canonical(base)) cpu.raise(kGp, 0);
  if (size == 4 && insn.operand_size == 2) base &= 0xffffff;  // the 80286's 24-bit base
  table = {base, limit};
  return next_changed(cpu, insn);
}

StepResult load_far_pointer(Cpu& cpu, const Insn& insn, Seg seg) {
  const unsigned size = insn.operands[0].size;
  const u64 linear = cpu.linear_of(insn, size + 2, Access::kRead);
  const u64 offset = cpu.load(linear, size);
  const u16 selector = static_cast<u16>(cpu.load(linear + size, 2));
  cpu.load_segment(seg, selector);
  write_gpr_sized(cpu.s, insn.operands[0].reg, size, offset);
  return next_changed(cpu, insn);
}

StepResult verify(Cpu& cpu, const Insn& insn, bool write) {
  require_protected(cpu);
  const u16 selector = read_operand<u16>(cpu, insn, 0);
  const auto d = look_up(cpu, selector);
  set_zf(cpu.s,
         d && !d->is_system() && visible(cpu, *d, selector) && (write ? d->is_writable_data() : d->is_readable()));
  return next(cpu, insn);
}

}  // namespace

void begin_interrupt_shadow(Cpu& cpu) { cpu.s.interrupt_shadow = true; }

void load_data_segment(Cpu& cpu, unsigned seg, u16 selector) {
  if (seg == kCs) cpu.raise(kUd);
  cpu.load_segment(static_cast<Seg>(seg), selector);
  if (seg == kSs) begin_interrupt_shadow(cpu);
}

StepResult mov_to_segment(Cpu& cpu, const Insn& insn) {
  const Operand& from = insn.operands[1];
  const u64 value =
      from.kind == OperandKind::kMemory ? cpu.load(cpu.linear_of(insn, 2, Access::kRead), 2) : cpu.s.gpr[from.reg];
  const unsigned seg = insn.operands[0].reg;
  load_data_segment(cpu, seg, static_cast<u16>(value));
  return insn.mode == CodeSize::k64 && seg != kSs ? next(cpu, insn) : next_changed(cpu, insn);
}

StepResult mov_from_segment(Cpu& cpu, const Insn& insn) {
  store_word(cpu, insn, cpu.s.seg[insn.operands[1].reg].selector);
  return next(cpu, insn);
}

StepResult op_lds(Cpu& cpu, const Insn& insn) { return load_far_pointer(cpu, insn, kDs); }
StepResult op_les(Cpu& cpu, const Insn& insn) { return load_far_pointer(cpu, insn, kEs); }
StepResult op_lfs(Cpu& cpu, const Insn& insn) { return load_far_pointer(cpu, insn, kFs); }
StepResult op_lgs(Cpu& cpu, const Insn& insn) { return load_far_pointer(cpu, insn, kGs); }
StepResult op_lss(Cpu& cpu, const Insn& insn) { return load_far_pointer(cpu, insn, kSs); }

StepResult op_sgdt(Cpu& cpu, const Insn& insn) { return store_table(cpu, insn, cpu.s.gdtr); }
StepResult op_sidt(Cpu& cpu, const Insn& insn) { return store_table(cpu, insn, cpu.s.idtr); }
StepResult op_lgdt(Cpu& cpu, const Insn& insn) { return load_table(cpu, insn, cpu.s.gdtr); }
StepResult op_lidt(Cpu& cpu, const Insn& insn) { return load_table(cpu, insn, cpu.s.idtr); }

StepResult op_sldt(Cpu& cpu, const Insn& insn) {
  require_protected(cpu);
  require_umip(cpu);
  store_word(cpu, insn, cpu.s.ldtr.selector);
  return next(cpu, insn);
}
StepResult op_str(Cpu& cpu, const Insn& insn) {
  require_protected(cpu);
  require_umip(cpu);
  store_word(cpu, insn, cpu.s.tr.selector);
  return next(cpu, insn);
}
StepResult op_smsw(Cpu& cpu, const Insn& insn) {
  require_umip(cpu);
  store_word(cpu, insn, cpu.s.cr0);
  return next(cpu, insn);
}
StepResult op_lldt(Cpu& cpu, const Insn& insn) {
  require_protected(cpu);
  require_cpl0(cpu);
  cpu.load_ldt(read_operand<u16>(cpu, insn, 0));
  return next_changed(cpu, insn);
}
StepResult op_ltr(Cpu& cpu, const Insn& insn) {
  require_protected(cpu);
  require_cpl0(cpu);
  cpu.load_tr(read_operand<u16>(cpu, insn, 0));
  return next_changed(cpu, insn);
}

StepResult op_verr(Cpu& cpu, const Insn& insn) { return verify(cpu, insn, false); }
StepResult op_verw(Cpu& cpu, const Insn& insn) { return verify(cpu, insn, true); }

StepResult op_lar(Cpu& cpu, const Insn& insn) {
  require_protected(cpu);
  const u16 selector = read_operand<u16>(cpu, insn, 1);
  const auto d = look_up(cpu, selector);
  const bool ok = d && visible(cpu, *d, selector) && (!d->is_system() || lar_type(cpu, d->type()));
  if (ok) write_gpr_sized(cpu.s, insn.operands[0].reg, insn.operands[0].size, (d->low >> 32) & 0xffff00);
  set_zf(cpu.s, ok);
  return next(cpu, insn);
}
StepResult op_lsl(Cpu& cpu, const Insn& insn) {
  require_protected(cpu);
  const u16 selector = read_operand<u16>(cpu, insn, 1);
  const auto d = look_up(cpu, selector);
  const bool ok = d && visible(cpu, *d, selector) && (!d->is_system() || lsl_type(cpu, d->type()));
  if (ok) write_gpr_sized(cpu.s, insn.operands[0].reg, insn.operands[0].size, d->limit());
  set_zf(cpu.s, ok);
  return next(cpu, insn);
}

// Raises the RPL of the destination to the source's.
StepResult op_arpl(Cpu& cpu, const Insn& insn) {
  require_protected(cpu);
  const u16 least = read_operand<u16>(cpu, insn, 1) & 3;
  bool raised = false;
  modify_operand<u16>(cpu, insn, 0, [&](u16 selector) {
    raised = (selector & 3) < least;
    return raised ? static_cast<u16>((selector & ~3) | least) : selector;
  });
  set_zf(cpu.s, raised);
  return next(cpu, insn);
}

}  // namespace bulkhead::engine::dbt
