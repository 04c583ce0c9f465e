// Work that many threads ask for and one at a time does: whoever finds it idle runs it, the others leave a bit and go.
// So nobody waits, and asking again from within the work (a backend that calls back at once) is fine.
#pragma once
#include <atomic>
#include <functional>

#include "base/ints.h"

namespace bulkhead::device {

class SerialWork {
 public:
  explicit SerialWork(std::function<void(u64 bits)> work) : work_{std::move(work)} {}

  // Any thread. The work runs with at least these bits, here or on the thread that is at it now.
  void post(u64 bits) {
    pending_.fetch_or(bits);
    run();
  }

  // Runs `change` while no work runs; waits for what runs now. Not from within the work.
  template <class Change>
  void exclusive(Change&& change) {
    while (busy_.exchange(true)) busy_.wait(true);
    change();
    release();
    run();
  }

 private:
  void release() {
    busy_.store(false);
    busy_.notify_all();
  }
  void run() {
    // Who fails to get `busy_` has its bits seen by the holder, which looks again after it let go.
    while (pending_.load() != 0) {
      if (busy_.exchange(true)) return;
      if (const u64 bits = pending_.exchange(0); bits != 0) work_(bits);
      release();
    }
  }

  std::function<void(u64)> work_;
  std::atomic<u64> pending_{0};
  std::atomic<bool> busy_{false};
};

}  // namespace bulkhead::device
