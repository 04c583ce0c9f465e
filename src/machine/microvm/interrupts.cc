#include "machine/microvm/interrupts.h"

namespace bulkhead::machine {
namespace {
constexpr u32 kTimerGsi = 2;  // as the MADT's override says
}  // namespace

Interrupts::Interrupts(engine::Partition& partition)
    : ioapic_{partition},
      pic_{[&partition](bool high) { partition.set_extint(high); }},
      controller_{partition.interrupt_controller()} {
  for (u32 line = 0; line < lines_.size(); ++line) {
    lines_[line].controller = controller_;
    lines_[line].gsi = Gsi{line};
  }
  for (u32 irq = 0; irq < isa_.size(); ++irq) {
    isa_[irq].pic = &pic_.line(irq);
    isa_[irq].ioapic = &ioapic_.line(Gsi{irq == 0 ? kTimerGsi : irq});
  }
  partition.set_extint_source(&acknowledge_);
  partition.set_eoi_handler([this](u8 vector) { ioapic_.eoi(vector); });
}

IrqLine& Interrupts::isa(u32 irq) {
  if (controller_ != nullptr) return lines_[irq];
  return isa_[irq];
}

IrqLine& Interrupts::gsi(Gsi gsi) {
  if (controller_ != nullptr) return lines_[gsi.value];
  if (gsi.value < isa_.size()) return isa_[gsi.value];
  return ioapic_.line(gsi);
}

}  // namespace bulkhead::machine
