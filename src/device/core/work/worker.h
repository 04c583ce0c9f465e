// A thread that works on numbered items when kicked, and can be held still.
// kick() from any thread, paused() from any but the worker's own.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "base/ints.h"

namespace bulkhead::device {

class Worker {
 public:
  // `work` gets the set of items that were kicked. It should look at stop_soon() between requests and return early when
  // it is true; items it was given are then kicked again when the pause is over.
  // `name` of the thread, at most 15 characters.
  Worker(const char* name, std::function<void(u64 items)> work) : name_{name}, work_{std::move(work)} {}
  ~Worker();

  void start();  // once; before it kicks only collect
  void kick(u64 items);
  bool stop_soon() const { return pauses_.load(std::memory_order_relaxed) != 0; }
  // Runs `change` while no work runs, after what runs now has returned.
  void paused(const std::function<void()>& change);

 private:
  void loop();

  const char* name_;
  std::function<void(u64)> work_;
  std::mutex mutex_;
  std::condition_variable changed_;
  u64 kicked_ = 0;
  bool busy_ = false, exit_ = false;
  std::atomic<u32> pauses_{0};  // written under mutex_
  std::thread thread_;
};

}  // namespace bulkhead::device
