#include "device/pit/pit.h"

#include <algorithm>

namespace bulkhead::device {
namespace {
constexpr u64 kSecond = 1'000'000'000;
constexpr Nanoseconds kRefresh = 15'085;  // 18 ticks

// Rounded so that at time_of(t), ticks_at() has just become t.
PitTicks ticks_at(Nanoseconds time) { return static_cast<PitTicks>(u128{time} * Pit::kHertz / kSecond); }
Nanoseconds time_of(PitTicks ticks) {
  return static_cast<Nanoseconds>((u128{ticks} * kSecond + Pit::kHertz - 1) / Pit::kHertz);
}
}  // namespace

Pit::Pit(TimerService& timers, IrqLine& irq)
    : clock_{timers.clock()}, irq_{irq}, timer_{timers.create([this] { timer_expired(); })} {}

PitTicks Pit::ticks_now() const { return ticks_at(clock_.now()); }

void Pit::reset() {
  Lock lock{mutex_};
  for (unsigned i = 0; i < channels_.size(); ++i) channels_[i].reset(i != kSpeakerChannel);
  port_b_written_ = 0;
  irq_.set(false);
  schedule(ticks_now());
}

u8 Pit::read_byte(unsigned index) {
  Lock lock{mutex_};
  const PitTicks now = ticks_now();
  if (index < kControl) return channels_[index].read(now);
  return index == kSpeaker ? read_port_b(now) : 0xff;
}

void Pit::write_byte(unsigned index, u8 value) {
  Lock lock{mutex_};
  const PitTicks now = ticks_now();
  raise_if_due(now);  // under the old programming
  if (index < kControl) {
    channels_[index].write_count(value, now);
    if (index == 0) follow_output(now);
  } else if (index == kControl) {
    write_control(value, now);
  } else {
    port_b_written_ = value & 0x0f;
    channels_[kSpeakerChannel].set_gate(value & 1, now);
  }
}

void Pit::write_control(u8 value, PitTicks now) {
  const unsigned channel = value >> 6;
  if (channel == 3) return read_back(value, now);
  if ((value & 0x30) == 0) return channels_[channel].latch_count(now);
  channels_[channel].write_control(value & 0x3f);
  if (channel == 0) follow_output(now);
}

void Pit::follow_output(PitTicks now) {
  irq_.set(channels_[0].output(now));
  schedule(now);
}

void Pit::read_back(u8 value, PitTicks now) {
  for (unsigned channel = 0; channel < channels_.size(); ++channel) {
    if (!(value >> (channel + 1) & 1)) continue;
    if (!(value & 0x20)) channels_[channel].latch_count(now);
    if (!(value & 0x10)) channels_[channel].latch_status(now);
  }
}

u8 Pit::read_port_b(PitTicks now) {
  u8 value = port_b_written_;
  if (clock_.now() / kRefresh % 2) value |= 0x10;
  if (channels_[kSpeakerChannel].output(now)) value |= 0x20;
  return value;
}

void Pit::timer_expired() {
  Lock lock{mutex_};
  const PitTicks now = ticks_now();
  raise_if_due(now);
  last_expiry_ = clock_.now();
  schedule(now);
}

void Pit::raise_if_due(PitTicks now) {
  if (!next_rise_ || now < *next_rise_) return;
  if (const PitTicks period = channels_[0].period(); period != 0) merged_.add((now - *next_rise_) / period);
  next_rise_ = channels_[0].next_rise(now);
  irq_.set(false);
  irq_.set(true);
  irq_.set(channels_[0].output(now));
}

void Pit::schedule(PitTicks now) {
  next_rise_ = channels_[0].next_rise(now);
  if (!next_rise_) return timer_->disarm();
  // A guest may program a period of a microsecond; it gets one interrupt for many rises.
  timer_->arm(std::max(time_of(*next_rise_), last_expiry_ + kMinimumInterval));
}

}  // namespace bulkhead::device
