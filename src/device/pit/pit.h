// 8254 PIT at ports 0x40-0x43 and the PC's port B (0x61): system timer, refresh, speaker.
// Source: [i8254], [ich "NMI Status and Control Register"] for port B. Fidelity: all modes, access, latches, read-back,
// BCD; counts are a function of the clock, exact to a tick. The speaker is silent; channel 1 drives nothing but the
// refresh bit, which toggles every 15 us whatever the channel is programmed to. IRQ0 is channel 0's OUT, raised from a
// timer: rises that the host was too late for, or that come faster than kMinimumInterval, are merged into one and
// counted.
//
// Ports are touched by vCPUs under the bus lock, the timer comes on the timer thread: the model has a mutex of its own.
// Order: pit, then the line.
#pragma once
#include <array>
#include <memory>
#include <optional>

#include "base/clock.h"
#include "base/sync.h"
#include "bus/io.h"
#include "device/byte_device.h"
#include "device/pit/pit_channel.h"
#include "telemetry/counter.h"

namespace bulkhead::device {

class Pit final : private ByteRegisters {
 public:
  static constexpr u16 kPort = 0x40, kPortB = 0x61;
  static constexpr u64 kHertz = 1193182;
  static constexpr Nanoseconds kMinimumInterval = 100'000;  // between two timer callbacks

  Pit(TimerService& timers, IrqLine& irq);  // both outlive us; `irq` is ISA IRQ0
  Pit(const Pit&) = delete;
  Pit& operator=(const Pit&) = delete;

  ByteWindow& ports() { return ports_; }    // 4 ports
  ByteWindow& port_b() { return port_b_; }  // 1 port
  void reset();
  u64 merged() const { return merged_.value(); }  // rises of IRQ0 that were merged into a later one; any thread

 private:
  enum Register : unsigned { kChannels = 0, kControl = 3, kSpeaker = 4 };
  static constexpr unsigned kSpeakerChannel = 2;

  u8 read_byte(unsigned index) override;
  void write_byte(unsigned index, u8 value) override;
  void write_control(u8 value, PitTicks now) BH_REQUIRES(mutex_);
  void read_back(u8 value, PitTicks now) BH_REQUIRES(mutex_);
  u8 read_port_b(PitTicks now) BH_REQUIRES(mutex_);
  void follow_output(PitTicks now) BH_REQUIRES(mutex_);
  void timer_expired();
  void raise_if_due(PitTicks now) BH_REQUIRES(mutex_);
  void schedule(PitTicks now) BH_REQUIRES(mutex_);
  PitTicks ticks_now() const;

  Clock& clock_;
  IrqLine& irq_;
  ByteWindow ports_{*this, kChannels, 4};
  ByteWindow port_b_{*this, kSpeaker, 1};
  telemetry::Counter merged_;

  Mutex mutex_;
  std::array<PitChannel, 3> channels_ BH_GUARDED_BY(mutex_){PitChannel{true}, PitChannel{true}, PitChannel{false}};
  u8 port_b_written_ BH_GUARDED_BY(mutex_) = 0;
  std::optional<PitTicks> next_rise_ BH_GUARDED_BY(mutex_);  // of IRQ0
  Nanoseconds last_expiry_ BH_GUARDED_BY(mutex_) = 0;
  std::unique_ptr<Timer> timer_;  // last: its callback must end before the rest goes
};

}  // namespace bulkhead::device
