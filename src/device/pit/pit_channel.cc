#include "device/pit/pit_channel.h"

#include <utility>

namespace bulkhead::device {

void PitChannel::write_control(u8 control) {
  const bool gate = gate_;
  *this = PitChannel{gate};
  access_ = static_cast<Access>(control >> 4 & 3);
  raw_mode_ = control >> 1 & 7;
  bcd_ = control & 1;
}

void PitChannel::write_count(u8 value, PitTicks now) {
  settle(now);
  u16 raw = value;
  if (access_ == Access::kHigh) raw = static_cast<u16>(value << 8);
  if (access_ == Access::kBoth) {
    if (!std::exchange(write_high_next_, !write_high_next_)) {
      low_byte_ = value;
      if (mode() == 0) {  // the first byte stops the count
        running_ = false;
        count_ = 0;
        null_count_ = true;
      }
      return;
    }
    raw = static_cast<u16>(value << 8 | low_byte_);
  }
  written_ = decoded(raw);
  null_count_ = true;
  if (triggered_by_gate()) return;  // at the next trigger
  if (periodic() && count_ != 0 && running_) {
    reload_at_ = now + (count_ - elapsed(now) % count_);
    return;
  }
  start(now);
}

void PitChannel::start(PitTicks now) {
  count_ = written_;
  null_count_ = false;
  started_ = now;
  before_pause_ = 0;
  reload_at_.reset();
  running_ = count_ != 0 && (gate_ || triggered_by_gate());
}

void PitChannel::settle(PitTicks now) {
  if (reload_at_ && now >= *reload_at_) start(*reload_at_);
}

PitTicks PitChannel::elapsed(PitTicks now) const { return before_pause_ + (running_ ? now - started_ : 0); }

void PitChannel::set_gate(bool high, PitTicks now) {
  settle(now);
  if (std::exchange(gate_, high) == high) return;
  if (triggered_by_gate()) {
    if (high && written_ != 0) start(now);
    return;
  }
  if (count_ == 0) return;
  if (!high) {
    before_pause_ = elapsed(now);
    running_ = false;
  } else if (periodic()) {
    start(now);  // the gate synchronises
  } else {
    started_ = now;
    running_ = true;
  }
}

bool PitChannel::output(PitTicks now) {
  settle(now);
  const PitTicks ticks = elapsed(now);
  switch (mode()) {
    case 0:
      return count_ != 0 && ticks >= count_;
    case 1:
      return count_ == 0 || ticks >= count_;
    case 2:
      return !running_ || ticks % count_ != count_ - 1;
    case 3:
      return !running_ || ticks % count_ < (count_ + 1) / 2;
    default:
      return count_ == 0 || ticks != count_;  // 4 and 5: one tick low
  }
}

std::optional<PitTicks> PitChannel::next_rise(PitTicks now) {
  settle(now);
  if (!running_ || count_ == 0) return std::nullopt;
  const PitTicks ticks = elapsed(now);
  if (periodic()) {
    const PitTicks rise = now + (count_ - ticks % count_);
    return rise;  // also the end of the last cycle before a reload
  }
  const PitTicks rises_at = mode() >= 4 ? count_ + 1 : count_;
  if (ticks >= rises_at) return std::nullopt;
  return now + (rises_at - ticks);
}

u16 PitChannel::value(PitTicks now) {
  settle(now);
  const u64 span = bcd_ ? 10000 : 65536;
  if (count_ == 0) return encoded(written_ % span);
  const PitTicks ticks = elapsed(now);
  if (mode() == 2) return encoded((count_ - ticks % count_) % span);
  if (mode() == 3) {  // counts by two, twice a cycle; odd counts are high for one tick more
    const PitTicks position = ticks % count_, half = (count_ + 1) / 2;
    const PitTicks in_half = position < half ? position : position - half;
    return encoded(((count_ & ~u64{1}) - 2 * in_half) % span);
  }
  return encoded((count_ + span - ticks % span) % span);  // goes on below zero
}

void PitChannel::latch_count(PitTicks now) {
  if (!latched_) latched_ = value(now);
}

void PitChannel::latch_status(PitTicks now) {
  if (status_) return;
  const bool out = output(now);  // settles null_count_
  status_ = static_cast<u8>((out ? 0x80 : 0) | (null_count_ ? 0x40 : 0) | static_cast<u8>(access_) << 4 |
                            raw_mode_ << 1 | (bcd_ ? 1 : 0));
}

u8 PitChannel::read(PitTicks now) {
  if (status_) return *std::exchange(status_, std::nullopt);
  const u16 shown = latched_ ? *latched_ : value(now);
  const bool high = access_ == Access::kHigh || (access_ == Access::kBoth && read_high_next_);
  if (access_ == Access::kBoth) read_high_next_ = !read_high_next_;
  if (access_ != Access::kBoth || high) latched_.reset();
  return static_cast<u8>(high ? shown >> 8 : shown);
}

// Digits above nine count for what they are worth; the chip leaves them undefined.
u64 PitChannel::decoded(u16 raw) const {
  if (!bcd_) return raw == 0 ? 65536 : raw;
  const u64 count = (raw >> 12 & 15) * 1000u + (raw >> 8 & 15) * 100u + (raw >> 4 & 15) * 10u + (raw & 15);
  return count == 0 ? 10000 : count;
}

u16 PitChannel::encoded(u64 count) const {
  if (!bcd_) return static_cast<u16>(count);
  const u64 n = count % 10000;
  return static_cast<u16>(n / 1000 << 12 | n / 100 % 10 << 8 | n / 10 % 10 << 4 | n % 10);
}

}  // namespace bulkhead::device
