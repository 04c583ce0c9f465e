#include "base/timer_service.h"

#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <system_error>
#include <utility>

#include "base/assert.h"
#include "base/thread.h"

namespace bulkhead {
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

HostTimerService::HostTimerService() : alarm_{::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC)} {  // as HostClock
  if (!alarm_) throw std::system_error{errno, std::generic_category(), "timerfd_create"};
  thread_ = start_thread("bh-timers", [this] { run(); });
}

HostTimerService::~HostTimerService() {
  {
    Lock lock{mutex_};
    BH_ASSERT(alive_ == 0);
    stop_ = true;
    set_alarm(0);
  }
  thread_.join();
}

std::unique_ptr<Timer> HostTimerService::create(std::function<void()> callback) {
  Lock lock{mutex_};
  ++alive_;
  return std::make_unique<HostTimer>(*this, std::move(callback));
}

void HostTimerService::arm(HostTimer& timer, Nanoseconds deadline) {
  Lock lock{mutex_};
  armed_.erase(&timer);
  timer.deadline_ = deadline;
  armed_.insert(&timer);
  if (asleep_ && deadline < alarm_at_) set_alarm(deadline);
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

void HostTimerService::set_alarm(Nanoseconds deadline) {
  constexpr Nanoseconds kSecond = 1'000'000'000, kFarthest = u64{1} << 62;  // some 146 years
  const Nanoseconds at = std::clamp(deadline, Nanoseconds{1}, kFarthest);   // 0 would be none
  const itimerspec when{{}, {static_cast<time_t>(at / kSecond), static_cast<long>(at % kSecond)}};
  BH_ASSERT(::timerfd_settime(alarm_.get(), TFD_TIMER_ABSTIME, &when, nullptr) == 0);
  alarm_at_ = deadline;
}

void HostTimerService::sleep() {
  u64 expirations = 0;
  while (::read(alarm_.get(), &expirations, sizeof expirations) < 0 && errno == EINTR) {
  }
}

void HostTimerService::run() {
  Lock lock{mutex_};
  while (!stop_) {
    HostTimer* const first = armed_.empty() ? nullptr : *armed_.begin();
    if (first == nullptr || first->deadline_ > clock_.now()) {
      if (first != nullptr) set_alarm(first->deadline_);
      asleep_ = true;
      mutex_.unlock();
      sleep();
      mutex_.lock();
      asleep_ = false;
      alarm_at_ = kNever;
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
