// Timers for tests: nothing moves and no callback runs until advance() says so, on the thread that calls it.
#pragma once
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace bulkhead {

// Single-threaded. Timers must be destroyed before the service.
class FakeTimerService : public TimerService {
 public:
  FakeClock& clock() override { return clock_; }

  std::unique_ptr<Timer> create(std::function<void()> callback) override {
    auto timer = std::make_unique<FakeTimer>(*this, std::move(callback));
    timers_.push_back(timer.get());
    return timer;
  }

  // Moves the clock by `by`, stopping at every deadline on the way to run its callback at exactly that time.
  void advance(Nanoseconds by) {
    const Nanoseconds target = clock_.now() + by;
    for (FakeTimer* next; (next = earliest()) != nullptr && next->deadline_ <= target;) {
      if (next->deadline_ > clock_.now()) clock_.advance(next->deadline_ - clock_.now());
      fire(*next);
    }
    clock_.advance(target - clock_.now());
  }

  // Moves the clock by `by` at once and only then runs what is due: a host that was too busy to run us.
  void stall(Nanoseconds by) {
    clock_.advance(by);
    advance(0);
  }

  std::size_t armed() const {
    std::size_t count = 0;
    for (const FakeTimer* timer : timers_) count += timer->armed_;
    return count;
  }
  u64 fired() const { return fired_; }  // callbacks run so far

 private:
  class FakeTimer final : public Timer {
   public:
    FakeTimer(FakeTimerService& service, std::function<void()> callback)
        : service_{service}, callback_{std::move(callback)} {}
    ~FakeTimer() override { std::erase(service_.timers_, this); }
    void arm(Nanoseconds deadline) override {
      deadline_ = deadline;
      armed_ = true;
    }
    void disarm() override { armed_ = false; }

   private:
    friend class FakeTimerService;
    FakeTimerService& service_;
    std::function<void()> callback_;
    Nanoseconds deadline_ = 0;
    bool armed_ = false;
  };

  FakeTimer* earliest() const {
    FakeTimer* best = nullptr;
    for (FakeTimer* timer : timers_)
      if (timer->armed_ && (best == nullptr || timer->deadline_ < best->deadline_)) best = timer;
    return best;
  }

  void fire(FakeTimer& timer) {
    timer.armed_ = false;
    ++fired_;
    timer.callback_();
  }

  FakeClock clock_;
  std::vector<FakeTimer*> timers_;
  u64 fired_ = 0;
};

}  // namespace bulkhead
