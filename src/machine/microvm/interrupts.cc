#include "machine/microvm/interrupts.h"

namespace bulkhead::machine {
namespace {
constexpr u32 kTimerGsi = 2;  // as the MADT's override says
}  // namespace

Interrupts::Interrupts(engine::Partition& partition)
    : ioapic_{partition}, pic_{[&partition](bool high) { partition.set_extint(high); }} {
  for (u32 irq = 0; irq < isa_.size(); ++irq) {
    isa_[irq].pic = &pic_.line(irq);
    isa_[irq].ioapic = &ioapic_.line(Gsi{irq == 0 ? kTimerGsi : irq});
  }
  partition.set_extint_source(&acknowledge_);
  partition.set_eoi_handler([this](u8 vector) { ioapic_.eoi(vector); });
}

IrqLine& Interrupts::gsi(Gsi gsi) {
  if (gsi.value < isa_.size()) return isa_[gsi.value];
  return ioapic_.line(gsi);
}

}  // namespace bulkhead::machine
