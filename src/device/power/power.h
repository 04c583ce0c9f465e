// power: the ports by which a guest powers off or resets. Sleep control and status registers of hardware-reduced ACPI,
// the chipset's reset control register 0xcf9, and command 0xfe of a keyboard controller that is otherwise absent.
// Source: [acpi-6.5 §4.8.3.7, §4.8.3.6], spec/acpi_ports.h. Fidelity: S5 only; other sleep types are ignored. 0xcf9
// does not tell hard from soft reset. Port 0x64 reads as nothing there (0xff), which ends a guest's search for a
// keyboard. Runs on the vCPU that touched the port, under the bus lock.
#pragma once
#include <functional>

#include "bus/io.h"
#include "device/byte_device.h"

namespace bulkhead::device {

class Power final : private ByteRegisters {
 public:
  // Neither may block or wait for vCPUs: they ask the machine to stop and return. The guest runs on for a while and may
  // ask again; only the first request counts until reset().
  struct Actions {
    std::function<void()> power_off;
    std::function<void()> reset;
  };
  explicit Power(Actions actions);

  ByteWindow& sleep() { return sleep_; }                  // at kSleepControlPort, 2 ports
  ByteWindow& reset_control() { return reset_control_; }  // at kResetPort
  ByteWindow& keyboard() { return keyboard_; }            // at kKeyboardCommandPort

  void reset();  // while no vCPU runs: as after power-on

 private:
  enum Register : unsigned { kSleepControl, kSleepStatus, kResetControl, kKeyboardCommand };
  u8 read_byte(unsigned index) override;
  void write_byte(unsigned index, u8 value) override;
  void request(const std::function<void()>& action);

  const Actions actions_;
  ByteWindow sleep_{*this, kSleepControl, 2};
  ByteWindow reset_control_{*this, kResetControl, 1};
  ByteWindow keyboard_{*this, kKeyboardCommand, 1};
  bool requested_ = false;
  u8 sleep_control_value_ = 0;
  u8 reset_control_value_ = 0;
};

}  // namespace bulkhead::device
