// The host's timers: one thread that sleeps until the earliest deadline and runs callbacks in order of their deadlines.
// It sleeps on a timerfd, so whoever arms an earlier one sets that and need not wake it.
#pragma once
#include <condition_variable>
#include <memory>
#include <set>
#include <thread>

#include "base/clock.h"
#include "base/fd.h"
#include "base/sync.h"

namespace bulkhead {

// create(), arm() and disarm() from any thread, also from inside a callback and with the caller's own lock held: the
// service never holds its lock while it runs a callback. disarm() does not wait, so a callback whose deadline had come
// may still run once behind it: callbacks look at their own state under their own lock. Destroying a Timer does wait
// for its callback, so it must not happen in that callback nor with a lock held that the callback takes.
// All timers must be gone before the service is. A late callback is run once, however late: nothing is queued.
class HostTimerService final : public TimerService {
 public:
  HostTimerService();  // throws std::system_error if the host has no thread or file descriptor for it
  ~HostTimerService() override;
  HostTimerService(const HostTimerService&) = delete;
  HostTimerService& operator=(const HostTimerService&) = delete;

  Clock& clock() override { return clock_; }
  std::unique_ptr<Timer> create(std::function<void()> callback) override;

 private:
  static constexpr Nanoseconds kNever = ~Nanoseconds{0};
  class HostTimer;
  struct Earlier {
    bool operator()(const HostTimer* a, const HostTimer* b) const;
  };

  void run();
  void arm(HostTimer& timer, Nanoseconds deadline);
  void disarm(HostTimer& timer);
  void retire(HostTimer& timer);
  void set_alarm(Nanoseconds deadline) BH_REQUIRES(mutex_);
  void sleep();

  HostClock clock_;
  Mutex mutex_;
  UniqueFd alarm_;                        // a timerfd
  std::condition_variable_any finished_;  // for retire(): a callback has returned
  std::set<HostTimer*, Earlier> armed_ BH_GUARDED_BY(mutex_);
  HostTimer* running_ BH_GUARDED_BY(mutex_) = nullptr;
  std::size_t alive_ BH_GUARDED_BY(mutex_) = 0;
  Nanoseconds alarm_at_ BH_GUARDED_BY(mutex_) = kNever;  // when the thread's sleep ends, if it sleeps
  bool asleep_ BH_GUARDED_BY(mutex_) = false;
  bool stop_ BH_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace bulkhead
