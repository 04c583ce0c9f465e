#include "base/timer_service.h"

#include <sys/prctl.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <utility>

#include "base/assert.h"
#include "base/thread.h"

namespace bulkhead {
namespace {
// HostClock is CLOCK_MONOTONIC, and so is libstdc++'s steady_clock.
std::chrono::steady_clock::time_point time_point(Nanoseconds deadline) {
  constexpr Nanoseconds kFarthest = u64{1} << 62;  // some 146 years: keeps the signed conversion from overflowing
  return std::chrono::steady_clock::time_point{std::chrono::nanoseconds{std::min(deadline, kFarthest)}};
}
}  // namespace

class HostTimerService::HostTimer final : public Timer {
 public:
  HostTimer(HostTimerService& service, std::function<void()> callback)
      : service_{service}, callback_{std::move(callback)} {}
  ~HostTimer() override { service_.retire(*this); }
  void arm(Nanoseconds deadline) override { service_.arm(*this, deadline); }
  void disarm() override { service_.disarm(*this); }

 private:
  friend class HostTimerService;
  HostTimerService& service_;
  const std::function<void()> callback_;
  Nanoseconds deadline_ = 0;  // its place in armed_; changed only while it is not there
};

bool HostTimerService::Earlier::operator()(const HostTimer* a, const HostTimer* b) const {
  if (a->deadline_ != b->deadline_) return a->deadline_ < b->deadline_;
  return std::less<>{}(a, b);
}

HostTimerService::HostTimerService() {
  thread_ = start_thread("bh-timers", [this] { run(); });
}

HostTimerService::~HostTimerService() {
  {
    Lock lock{mutex_};
    BH_ASSERT(alive_ == 0);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

std::unique_ptr<Timer> HostTimerService::create(std::function<void()> callback) {
  Lock lock{mutex_};
  ++alive_;
  return std::make_unique<HostTimer>(*this, std::move(callback));
}

void HostTimerService::arm(HostTimer& timer, Nanoseconds deadline) {
  bool is_first = false;
  {
    Lock lock{mutex_};
    armed_.erase(&timer);
    timer.deadline_ = deadline;
    is_first = *armed_.insert(&timer).first == *armed_.begin();
  }
  if (is_first) wake_.notify_one();
}

void HostTimerService::disarm(HostTimer& timer) {
  Lock lock{mutex_};
  armed_.erase(&timer);  // the thread may wake up for nothing once: cheaper than waking it now
}

void HostTimerService::retire(HostTimer& timer) {
  Lock lock{mutex_};
  BH_ASSERT(running_ != &timer || std::this_thread::get_id() != thread_.get_id());  // it would wait for itself
  armed_.erase(&timer);
  while (running_ == &timer) finished_.wait(mutex_);
  --alive_;
}

void HostTimerService::run() {
  ::prctl(PR_SET_TIMERSLACK, 1UL);  // the default of 50 us would be seen by guests as jitter
  Lock lock{mutex_};
  while (!stop_) {
    if (armed_.empty()) {
      wake_.wait(mutex_);
      continue;
    }
    HostTimer* first = *armed_.begin();
    if (first->deadline_ > clock_.now()) {
      wake_.wait_until(mutex_, time_point(first->deadline_));
      continue;
    }
    armed_.erase(first);
    running_ = first;
    mutex_.unlock();
    first->callback_();
    mutex_.lock();
    running_ = nullptr;
    finished_.notify_all();
  }
}

}  // namespace bulkhead
