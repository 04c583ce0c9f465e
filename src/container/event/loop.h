// A loop of one thread: calls back when a descriptor is ready, when a time has come, or soon. All calls are from its
// thread, and callbacks may add and remove what they like, themselves included.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "base/fd.h"
#include "base/ints.h"

namespace bulkhead::container {

class Loop {
 public:
  using Ready = std::function<void(short)>;  // what of POLLIN, POLLOUT, POLLHUP and POLLERR there is
  using Work = std::function<void()>;

  // `fd` stays the caller's. `events` may be 0: then only the end of the other side is told, as poll() does.
  void watch(int fd, short events, Ready ready);
  void change(int fd, short events);
  void forget(int fd);
  u64 after(Nanoseconds wait, Work work);  // a number for cancel(), never 0
  void cancel(u64 number);
  void soon(Work work);  // when the callback that runs now is over
  void run();            // until stop()
  void stop() { stopped_ = true; }
  void restart() { stopped_ = false; }  // so that run() can be called again

 private:
  struct Watched {
    short events;
    std::shared_ptr<Ready> ready;
    u64 number;  // which watch of this descriptor
  };
  struct Timer {
    Nanoseconds when;
    Work work;
  };
  void run_due();
  int wait_ms() const;

  HostClock clock_;
  std::map<int, Watched> watched_;
  std::map<u64, Timer> timers_;
  std::vector<Work> soon_;
  u64 next_number_ = 1;
  bool stopped_ = false;
};

}  // namespace bulkhead::container
