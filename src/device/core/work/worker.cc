#include "device/core/work/worker.h"

#include <utility>

#include "base/thread.h"

namespace bulkhead::device {

void Worker::start() {
  if (thread_.joinable()) return;
  thread_ = start_thread(name_, [this] { loop(); });
}

Worker::~Worker() {
  {
    const std::lock_guard lock{mutex_};
    exit_ = true;
    pauses_.fetch_add(1);
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Worker::kick(u64 items) {
  bool wake;
  {
    const std::lock_guard lock{mutex_};
    wake = kicked_ == 0 && !busy_;
    kicked_ |= items;
  }
  if (wake) changed_.notify_all();
}

void Worker::paused(const std::function<void()>& change) {
  std::unique_lock lock{mutex_};
  pauses_.fetch_add(1);
  changed_.wait(lock, [&] { return !busy_; });
  change();
  pauses_.fetch_sub(1);
  lock.unlock();
  changed_.notify_all();
}

void Worker::loop() {
  std::unique_lock lock{mutex_};
  while (true) {
    changed_.wait(lock, [&] { return exit_ || (kicked_ != 0 && pauses_ == 0); });
    if (exit_) return;
    const u64 items = std::exchange(kicked_, 0);
    busy_ = true;
    lock.unlock();
    work_(items);
    lock.lock();
    busy_ = false;
    if (pauses_ == 0) continue;
    kicked_ |= items;  // the work may have stopped half-way
    changed_.notify_all();
  }
}

}  // namespace bulkhead::device
