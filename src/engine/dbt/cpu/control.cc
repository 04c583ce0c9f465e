// Control registers [SDM-3A §2.5, §4.1] and the paths between operating modes [SDM-3A §9.8.5].
#include "engine/dbt/cpu/cpu.h"
#include "engine/dbt/cpu/lapic.h"

namespace bulkhead::engine::dbt {
namespace {

constexpr u64 kCr0Defined =
    kCr0Pe | kCr0Mp | kCr0Em | kCr0Ts | kCr0Et | kCr0Ne | kCr0Wp | kCr0Am | kCr0Nw | kCr0Cd | kCr0Pg;
// A change of one of these makes what the TLB holds wrong.
constexpr u64 kCr0Paging = kCr0Pg | kCr0Wp | kCr0Pe, kCr4Paging = kCr4Pge | kCr4Pae | kCr4Pse | kCr4Smep | kCr4Smap;

}  // namespace

u64 Cpu::read_cr(unsigned cr) {
  switch (cr) {
    case 0:
      return s.cr0;
    case 2:
      return s.cr2;
    case 3:
      return s.cr3;
    case 4:
      return s.cr4;
    case 8:
      return lapic->cr8();
    default:
      raise(kUd);
  }
}

void Cpu::write_cr(unsigned cr, u64 value) {
  switch (cr) {
    case 0:
      return write_cr0(value);
    case 2:
      s.cr2 = value;
      return;
    case 3:
      return write_cr3(value);
    case 4:
      return write_cr4(value);
    case 8:
      if (value > 15) raise(kGp, 0);
      lapic->set_cr8(static_cast<u8>(value));
      return interrupts_may_be_deliverable();
    default:
      raise(kUd);
  }
}

// PG is changing while EFER.LME is set: enters or leaves long mode.
void Cpu::update_long_mode(u64 new_cr0) {
  if (new_cr0 & kCr0Pg) {
    if (!(s.cr4 & kCr4Pae) || s.seg[kCs].long_mode() || (!s.tr.unusable() && !tss_is_32())) raise(kGp, 0);
    s.efer |= kEferLma;
  } else {
    if (code_size() == CodeSize::k64) raise(kGp, 0);
    s.efer &= ~kEferLma;
  }
}

void Cpu::write_cr0(u64 value) {
  if (value >> 32) raise(kGp, 0);
  value = (value & kCr0Defined) | kCr0Et;
  if ((value & kCr0Pg) && !(value & kCr0Pe)) raise(kGp, 0);
  if ((value & kCr0Nw) && !(value & kCr0Cd)) raise(kGp, 0);
  const u64 changed = s.cr0 ^ value;
  if ((changed & kCr0Pg) && !(value & kCr0Pg) && (s.cr4 & kCr4Pcide)) raise(kGp, 0);
  const bool to_long = s.efer & kEferLme;
  if ((changed & value & kCr0Pg) && !to_long && (s.cr4 & kCr4Pae) && !check_pdptes(s.cr3)) raise(kGp, 0);
  if ((changed & kCr0Pg) && to_long) update_long_mode(value);
  s.cr0 = value;
  if ((changed & kCr0Pe) && !(value & kCr0Pe)) update_cpl(0);
  mode_changed();
  if (changed & kCr0Paging) flush_tlb(true);
}

void Cpu::write_cr3(u64 value) {
  if (long_mode()) {
    if (s.cr4 & kCr4Pcide) value &= ~(u64{1} << 63);  // "keep the TLB": we need not
    if (value & ~((u64{1} << features.physical_bits) - 1)) raise(kGp, 0);
  } else {
    value &= 0xffffffff;
    if ((s.cr0 & kCr0Pg) && (s.cr4 & kCr4Pae) && !check_pdptes(value)) raise(kGp, 0);
  }
  s.cr3 = value;
  flush_tlb(false);
}

void Cpu::write_cr4(u64 value) {
  if (value & ~features.cr4_allowed) raise(kGp, 0);
  const u64 changed = s.cr4 ^ value;
  if (long_mode() && !(value & kCr4Pae)) raise(kGp, 0);
  if ((changed & value & kCr4Pcide) && (!long_mode() || (s.cr3 & 0xfff) != 0)) raise(kGp, 0);
  if ((value & kCr4Pae) && !long_mode() && (s.cr0 & kCr0Pg) && (changed & kCr4Paging) && !check_pdptes(s.cr3))
    raise(kGp, 0);
  s.cr4 = value;
  mode_changed();
  if ((changed & kCr4Paging) || (changed & ~value & kCr4Pcide)) flush_tlb(true);
}

void Cpu::write_efer(u64 value) {
  value = (value & ~kEferLma) | (s.efer & kEferLma);  // LMA is the processor's
  if (value & ~(features.efer_allowed | kEferLma)) raise(kGp, 0);
  if (((s.efer ^ value) & kEferLme) && (s.cr0 & kCr0Pg)) raise(kGp, 0);
  const bool nxe_changed = (s.efer ^ value) & kEferNxe;
  s.efer = value;
  mode_changed();
  if (nxe_changed) flush_tlb(true);
}

void Cpu::write_xcr0(u64 value) {
  if ((value & ~features.xcr0_allowed) || !(value & 1)) raise(kGp, 0);
  if ((value & 4) && !(value & 2)) raise(kGp, 0);  // AVX needs SSE
  const u64 avx512 = value & 0xe0;
  if (avx512 != 0 && (avx512 != 0xe0 || !(value & 4))) raise(kGp, 0);  // all three, and AVX
  const u64 bound = value & 0x18;
  if (bound != 0 && bound != 0x18) raise(kGp, 0);  // BNDREGS with BNDCSR
  const u64 tiles = value & 0x60000;
  if (tiles != 0 && tiles != 0x60000) raise(kGp, 0);
  spill_fpu();  // what is live was filled under the old XCR0
  s.xcr0 = value;
}

}  // namespace bulkhead::engine::dbt
