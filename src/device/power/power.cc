#include "device/power/power.h"

#include <utility>

#include "spec/acpi_ports.h"

namespace bulkhead::device {
namespace acpi = spec::acpi;

Power::Power(Actions actions) : actions_{std::move(actions)} {}

void Power::reset() {
  requested_ = false;
  sleep_control_value_ = reset_control_value_ = 0;
}

void Power::request(const std::function<void()>& action) {
  if (!std::exchange(requested_, true)) action();
}

u8 Power::read_byte(unsigned index) {
  switch (index) {
    case kSleepControl:
      return sleep_control_value_;
    case kSleepStatus:
      return 0;  // we never wake up: there is nothing to wake from
    case kResetControl:
      return reset_control_value_;
    default:
      return 0xff;
  }
}

void Power::write_byte(unsigned index, u8 value) {
  switch (index) {
    case kSleepControl:
      sleep_control_value_ = value & ~acpi::kSleepEnable;
      if ((value & acpi::kSleepEnable) && (value & acpi::kSleepTypeMask) >> acpi::kSleepTypeShift == acpi::kSleepTypeS5)
        request(actions_.power_off);
      break;
    case kResetControl:
      reset_control_value_ = value & ~acpi::kResetCpu;
      if (value & acpi::kResetCpu) request(actions_.reset);
      break;
    case kKeyboardCommand:
      if (value == acpi::kKeyboardPulseReset) request(actions_.reset);
      break;
    default:
      break;
  }
}

}  // namespace bulkhead::device
