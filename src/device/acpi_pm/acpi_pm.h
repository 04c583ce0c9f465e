// acpi_pm: ACPI's fixed hardware, by which a guest powers off and finds a second clock beside the TSC.
// Source: [acpi-6.5 §4.8.3 "Fixed Hardware Registers"], spec/acpi.h.
// Fidelity: PM1 status, enable and control, 32-bit PM timer. SLP_TYP 5 (our \_S5) and 0 (what small kernels write
// without reading the DSDT) power off; others are ignored. SCI_EN is always set: there is no legacy mode to leave.
// Missing: the timer's overflow raises SCI only when a register is next touched; buttons; wake events.
// Runs on the vCPU that touched the port, under the bus lock.
#pragma once
#include <array>
#include <functional>

#include "base/clock.h"
#include "bus/io.h"

namespace bulkhead::device {

class AcpiPm final : public IoDevice {
 public:
  static constexpr unsigned kPorts = 12;  // from spec::acpi::kPm1ControlPort on

  // All outlive us. `power_off` must not block; it is called once.
  AcpiPm(const Clock& clock, IrqLine& sci, std::function<void()> power_off);

  IoReply read(u64 offset, AccessSize size) override;
  IoReply write(u64 offset, u64 value, AccessSize size) override;

 private:
  using Registers = std::array<u8, kPorts>;
  u32 timer() const;
  void look_at_timer();
  Registers registers() const;
  void control_written(u16 value);

  const Clock& clock_;
  IrqLine& sci_;
  const std::function<void()> power_off_;
  u16 status_ = 0, enable_ = 0, control_ = 0;
  bool timer_top_ = false;  // the timer's highest bit when last looked at
  bool off_ = false;
};

}  // namespace bulkhead::device
