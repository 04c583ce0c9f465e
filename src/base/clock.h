// Time as the devices see it, so that tests can hold it still.
#pragma once
#include <functional>
#include <memory>

#include "base/ints.h"

namespace bulkhead {

// Nanoseconds of CLOCK_MONOTONIC (or of a test's own clock). Never goes backwards.
using Nanoseconds = u64;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Nanoseconds now() const = 0;   // any thread
  virtual u64 unix_time_ns() const = 0;  // wall clock, for the RTC; any thread
};

// The host's clocks.
class HostClock final : public Clock {
 public:
  Nanoseconds now() const override;
  u64 unix_time_ns() const override;
};

// A clock that moves only when told to.
class FakeClock final : public Clock {
 public:
  Nanoseconds now() const override { return now_; }
  u64 unix_time_ns() const override { return unix_base_ + now_; }
  void advance(Nanoseconds by) { now_ += by; }
  void set_unix_base(u64 ns) { unix_base_ = ns; }

 private:
  Nanoseconds now_ = 0;
  u64 unix_base_ = 0;
};

// A callback at a point of time. One per device timer; owned by the device.
class Timer {
 public:
  virtual ~Timer() = default;
  virtual void arm(Nanoseconds deadline) = 0;  // absolute, replaces an earlier deadline
  virtual void disarm() = 0;
};

// Makes timers whose callbacks run on the timer thread. Destroying a Timer waits for its running callback.
class TimerService {
 public:
  virtual ~TimerService() = default;
  virtual Clock& clock() = 0;
  virtual std::unique_ptr<Timer> create(std::function<void()> callback) = 0;
};

}  // namespace bulkhead
