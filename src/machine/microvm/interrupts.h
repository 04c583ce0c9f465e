// The machine's interrupt wiring: each line ends at the 8259 pair and at the IOAPIC, which reach the vCPUs through the
// partition, or at the engine's own controllers.
#pragma once
#include <array>

#include "device/ioapic/ioapic.h"
#include "device/pic/pic.h"
#include "engine/engine.h"

namespace bulkhead::machine {

// Lock order: device, pic or ioapic, engine.
class Interrupts {
 public:
  explicit Interrupts(engine::Partition& partition);  // outlives us; its vCPUs do not run yet
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

  // The wire of ISA interrupt `irq` (0..15), on a PC also GSI `irq`, but for the timer, whose GSI is 2.
  IrqLine& isa(u32 irq);
  // The wire of a GSI (0..23 without 0 and 2).
  IrqLine& gsi(Gsi gsi);
  // The controllers are the engine's own: these two devices here have no wires.
  bool are_the_engines() const { return controller_ != nullptr; }
  device::Pic& pic() { return pic_; }
  device::IoApic& ioapic() { return ioapic_; }

 private:
  struct Fork final : IrqLine {
    void set(bool asserted) override {
      pic->set(asserted);
      ioapic->set(asserted);
    }
    IrqLine* pic = nullptr;
    IrqLine* ioapic = nullptr;
  };
  struct EngineLine final : IrqLine {
    void set(bool asserted) override { controller->set_line(gsi, asserted); }
    engine::InterruptController* controller = nullptr;
    Gsi gsi;
  };
  struct Acknowledge final : engine::ExtIntSource {
    explicit Acknowledge(device::Pic& source) : pic{source} {}
    std::optional<u8> acknowledge() override { return pic.acknowledge(); }
    device::Pic& pic;
  };

  device::IoApic ioapic_;
  device::Pic pic_;
  Acknowledge acknowledge_{pic_};
  std::array<Fork, device::Pic::kLines> isa_;
  engine::InterruptController* const controller_;
  std::array<EngineLine, engine::InterruptController::kLines> lines_;  // where they are the engine's
};

}  // namespace bulkhead::machine
