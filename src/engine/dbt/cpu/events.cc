// What comes from outside: INIT, SIPI, NMI and interrupts; and the state after reset [SDM-3A §9.1, §10.4].
#include "engine/dbt/cpu/cpu.h"
#include "engine/dbt/cpu/lapic.h"
#include "engine/dbt/cpu/shared.h"

namespace bulkhead::engine::dbt {

void Cpu::interrupts_may_be_deliverable() {
  if ((s.rflags & kIf) && lapic->has_interrupt()) s.pending.fetch_or(kPendingInterrupt, std::memory_order_relaxed);
  if (nmi_latched_ && !s.nmi_blocked) {
    nmi_latched_ = false;
    s.pending.fetch_or(kPendingNmi, std::memory_order_relaxed);
  }
}

std::optional<StepResult> Cpu::take_pending_event() {
  const auto clear = [this](u32 mask) { s.pending.fetch_and(~mask, std::memory_order_acq_rel); };
  const u32 pending = s.pending.load(std::memory_order_acquire);
  if (pending & kPendingInvalidate) shared.take_requests(*this);
  if (pending & kPendingInit) {
    clear(kPendingInit | kPendingNmi);  // not a SIPI: one that is there came behind the INIT (see Lapic::accept())
    return take_init();
  }
  if (pending & kPendingSipi) {
    clear(kPendingSipi);
    if (lapic->waiting_for_sipi()) {
      start_ap(lapic->sipi_vector());
      return StepResult::kBranch;
    }
  }
  if (lapic->waiting_for_sipi()) {
    if (pending & kPendingNmi) nmi_latched_ = true;
    clear(kPendingNmi | kPendingInterrupt);
    return std::nullopt;
  }
  if (s.interrupt_shadow) return std::nullopt;  // the bits stay: look again after the next instruction
  if (pending & kPendingNmi) {
    clear(kPendingNmi);
    if (!s.nmi_blocked) {
      s.nmi_blocked = true;
      return deliver_external(kNmi);
    }
    nmi_latched_ = true;
  }
  if (!(pending & kPendingInterrupt)) return std::nullopt;
  clear(kPendingInterrupt);  // before the look at the LAPIC: what arrives behind it sets the bit again
  if (!(s.rflags & kIf)) return std::nullopt;
  const std::optional<u8> vector = lapic->acknowledge();
  if (!vector) return std::nullopt;
  const StepResult result = deliver_external(*vector);
  interrupts_may_be_deliverable();
  return result;
}

// The first vCPU would start at the reset vector, where our machines have nothing: the machine resets as a whole.
StepResult Cpu::take_init() {
  if (index == 0) {
    exit = ShutdownExit{ShutdownReason::kInit};
    return StepResult::kExit;
  }
  reset(true);
  return StepResult::kHalt;
}

void Cpu::start_ap(u8 vector) {
  lapic->set_waiting_for_sipi(false);
  Segment& cs = s.seg[kCs];
  cs.selector = static_cast<u16>(vector << 8);
  cs.base = u64{vector} << 12;
  s.rip = 0;
  s.halted = false;
  interrupts_may_be_deliverable();
}

void Cpu::reset(bool init) {
  const u64 kept_cache_bits = init ? s.cr0 & (kCr0Cd | kCr0Nw) : kCr0Cd | kCr0Nw;
  s.gpr = {};
  s.gpr[kRdx] = features.signature;
  s.rip = 0xfff0;
  s.rflags = 2;
  for (Segment& segment : s.seg) segment = {0, 0x93, 0xffff, 0};
  s.seg[kCs] = {0xf000, 0x9b, 0xffff, 0xffff0000};
  s.ldtr = {0, 0x82, 0xffff, 0};
  s.tr = {0, 0x8b, 0xffff, 0};
  s.gdtr = s.idtr = {0, 0xffff};
  s.cr0 = kCr0Et | kept_cache_bits;
  s.cr2 = s.cr3 = s.cr4 = s.efer = 0;
  s.dr = {0, 0, 0, 0, 0, 0, 0xffff0ff0, 0x400};
  s.interrupt_shadow = s.nmi_blocked = s.halted = false;
  nmi_latched_ = false;
  if (!init) {
    spill_fpu();
    for (std::byte& byte : s.xsave) byte = std::byte{0};
    s.xsave[0] = std::byte{0x7f};  // FCW 0x37f
    s.xsave[1] = std::byte{0x03};
    s.xsave[24] = std::byte{0x80};  // MXCSR 0x1f80
    s.xsave[25] = std::byte{0x1f};
    s.xcr0 = 1;
    power_on_msrs();
  }
  lapic->reset(init);
  update_cpl(0);
  mode_changed();
  flush_tlb(true);
  instruction_done();
  if (index != 0) {
    lapic->set_waiting_for_sipi(true);
    s.halted = true;
  }
}

}  // namespace bulkhead::engine::dbt
