// MC146818 real-time clock and CMOS RAM, ports 0x70/0x71.       Source: [mc146818 "MC146818A" datasheet], ACPI's
// century byte Fidelity: time, BCD/binary, 12/24 hours, alarm, periodic and update-ended interrupts, UIP, SET, divider
// reset, 128 bytes. The clock is the host's wall clock plus what the guest has set it off by, until reset of the
// machine and beyond: battery. Ignored: NMI mask (bit 7 of the index), daylight saving, square wave. UIP is on for the
// last 2.2 ms of each second and the time changes at its end at once. Flags are worked out when somebody looks or an
// enabled interrupt needs them, and only one interrupt is outstanding until register C is read, so no rate floods the
// host.
//
// Ports are touched by vCPUs under the bus lock, the timer comes on the timer thread: the model has a mutex of its own.
// Order: rtc, then the line.
#pragma once
#include <array>
#include <memory>
#include <optional>

#include "base/clock.h"
#include "base/sync.h"
#include "bus/io.h"
#include "device/byte_device.h"
#include "device/rtc/calendar.h"

namespace bulkhead::device {

class Rtc final : private ByteRegisters {
 public:
  static constexpr u16 kPort = 0x70;
  static constexpr unsigned kPorts = 2;
  static constexpr u8 kCenturyRegister = 0x32;  // FADT.CENTURY
  static constexpr unsigned kCmosSize = 128;

  Rtc(TimerService& timers, IrqLine& irq);  // both outlive us; `irq` is ISA IRQ8
  Rtc(const Rtc&) = delete;
  Rtc& operator=(const Rtc&) = delete;

  ByteWindow& ports() { return ports_; }
  void reset();  // the RESET pin: interrupts off; time and CMOS stay

  // A CMOS byte that is not the clock's, e.g. the memory size for firmware: 0x0e..0x7f but the century. Before the
  // guest runs.
  void set_cmos(u8 index, u8 value);

 private:
  u8 read_byte(unsigned index) override;
  void write_byte(unsigned index, u8 value) override;
  u8 read_register() BH_REQUIRES(mutex_);
  void write_register(u8 value) BH_REQUIRES(mutex_);
  void write_time(u8 value) BH_REQUIRES(mutex_);
  void write_control(u8 a, u8 b) BH_REQUIRES(mutex_);
  u8 read_flags() BH_REQUIRES(mutex_);
  bool update_in_progress() const BH_REQUIRES(mutex_);

  // The guest's clock, in nanoseconds of its own Unix time. 128 bits, for a guest may set the year 9999.
  i128 guest_time() const BH_REQUIRES(mutex_);
  void show_time() BH_REQUIRES(mutex_);          // guest_time() into the registers
  i64 shown_time() const BH_REQUIRES(mutex_);    // the registers, in seconds
  bool time_stands() const BH_REQUIRES(mutex_);  // SET, or the divider held in reset

  u8 encoded(u32 value) const BH_REQUIRES(mutex_);
  u32 decoded(u8 raw) const BH_REQUIRES(mutex_);
  u8 encoded_hour(u32 hour) const BH_REQUIRES(mutex_);
  u32 decoded_hour(u8 raw) const BH_REQUIRES(mutex_);

  Nanoseconds period() const BH_REQUIRES(mutex_);                      // of the periodic interrupt; 0 when off
  std::optional<i64> next_alarm(i64 after) const BH_REQUIRES(mutex_);  // in seconds, later than `after`
  void catch_up() BH_REQUIRES(mutex_);  // flags for all that has happened since the last call
  void update_irq() BH_REQUIRES(mutex_);
  void schedule() BH_REQUIRES(mutex_);
  void timer_expired();

  Clock& clock_;
  IrqLine& irq_;
  ByteWindow ports_{*this, 0, kPorts};

  mutable Mutex mutex_;
  u8 index_ BH_GUARDED_BY(mutex_) = 0;
  std::array<u8, kCmosSize> cmos_ BH_GUARDED_BY(mutex_){};
  i128 offset_ BH_GUARDED_BY(mutex_) = 0;     // guest time less the host's wall clock
  i128 seen_time_ BH_GUARDED_BY(mutex_) = 0;  // guest_time() at the last catch_up()
  Nanoseconds seen_now_ BH_GUARDED_BY(mutex_) =
      0;                          // the same for the periodic interrupt, which stepping the time leaves be
  std::unique_ptr<Timer> timer_;  // last: its callback must end before the rest goes
};

}  // namespace bulkhead::device
