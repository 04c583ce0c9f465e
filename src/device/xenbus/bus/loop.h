// The thread on which a zone's xenbus devices change state, so that neither the guest's xenstore traffic nor a vCPU
// ever waits for one.
#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "base/clock.h"

namespace bulkhead::device::xenbus {

class Loop {
 public:
  using Task = std::function<void()>;

  Loop();
  ~Loop();  // runs what was posted; what was to come later is forgotten
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  void post(Task task);                          // any thread
  void post_after(Nanoseconds wait, Task task);  // any thread
  void run(const Task& task);                    // posts and waits; on the loop's own thread: runs it here

 private:
  void loop();
  Task next(std::unique_lock<std::mutex>& lock);

  HostClock clock_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Task> tasks_;
  std::multimap<Nanoseconds, Task> later_;
  bool exit_ = false;
  std::thread thread_;
};

}  // namespace bulkhead::device::xenbus
