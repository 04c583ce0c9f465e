// One counter of the 8254 as a function of time: no lock, no timer, no callbacks.     Source: [i8254 "8254 PIT"
// datasheet] Time is in ticks of 1193182 Hz since any fixed point; every call says what time it is, and time never goes
// backwards. A count takes effect on the tick it is written, not one later.
#pragma once
#include <optional>

#include "base/ints.h"

namespace bulkhead::device {

using PitTicks = u64;

class PitChannel {
 public:
  explicit PitChannel(bool gate) : gate_{gate} {}
  void reset(bool gate) { *this = PitChannel{gate}; }

  void write_control(u8 control);  // bits 5:0 of a control word that is not a latch command
  void write_count(u8 value, PitTicks now);
  u8 read(PitTicks now);
  void latch_count(PitTicks now);
  void latch_status(PitTicks now);
  void set_gate(bool high, PitTicks now);
  bool gate() const { return gate_; }

  bool output(PitTicks now);
  // When OUT rises next, later than `now`. Nothing when it will not without another access.
  std::optional<PitTicks> next_rise(PitTicks now);
  // The same, as the distance between rises: 0 when there is at most one.
  PitTicks period() const { return mode() == 2 || mode() == 3 ? count_ : 0; }

 private:
  enum class Access : u8 { kLow = 1, kHigh = 2, kBoth = 3 };
  unsigned mode() const { return raw_mode_ > 5 ? raw_mode_ & 3 : raw_mode_; }  // 6 and 7 are 2 and 3
  bool triggered_by_gate() const { return mode() == 1 || mode() == 5; }
  bool periodic() const { return mode() == 2 || mode() == 3; }
  void settle(PitTicks now);  // a new count of a periodic mode starts with the next cycle
  void start(PitTicks now);
  PitTicks elapsed(PitTicks now) const;
  u16 value(PitTicks now);  // as the counting element shows it, BCD where chosen
  u64 decoded(u16 raw) const;
  u16 encoded(u64 count) const;

  Access access_ = Access::kBoth;
  u8 raw_mode_ = 0;
  bool bcd_ = false;
  bool gate_;

  u8 low_byte_ = 0;  // of a two-byte write, until the other comes
  bool write_high_next_ = false, read_high_next_ = false;
  std::optional<u16> latched_;
  std::optional<u8> status_;

  u64 written_ = 0;                    // the count register, decoded: 1..65536; 0 before the first
  u64 count_ = 0;                      // what the counting element runs on; 0 while there is none
  bool null_count_ = true;             // written, not yet in the counting element
  bool running_ = false;               // counts now
  PitTicks started_ = 0;               // when the present run (cycle 0 of the periodic modes) began
  PitTicks before_pause_ = 0;          // ticks counted before `started_`, when the gate interrupted
  std::optional<PitTicks> reload_at_;  // periodic: when `written_` becomes `count_`
};

}  // namespace bulkhead::device
