#include "device/xenbus/bus/loop.h"

#include <chrono>
#include <future>

#include "base/thread.h"

namespace bulkhead::device::xenbus {

Loop::Loop() {
  thread_ = start_thread("xenbus", [this] { loop(); });
}

Loop::~Loop() {
  {
    const std::lock_guard lock{mutex_};
    exit_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Loop::post(Task task) {
  {
    const std::lock_guard lock{mutex_};
    tasks_.push_back(std::move(task));
  }
  changed_.notify_all();
}

void Loop::post_after(Nanoseconds wait, Task task) {
  {
    const std::lock_guard lock{mutex_};
    later_.emplace(clock_.now() + wait, std::move(task));
  }
  changed_.notify_all();
}

void Loop::run(const Task& task) {
  if (std::this_thread::get_id() == thread_.get_id()) return task();
  std::promise<void> done;
  post([&] {
    task();
    done.set_value();
  });
  done.get_future().wait();
}

// The next task, or an empty one when it is time to end.
Loop::Task Loop::next(std::unique_lock<std::mutex>& lock) {
  while (true) {
    Task task;
    if (!tasks_.empty()) {
      task = std::move(tasks_.front());
      tasks_.pop_front();
      return task;
    }
    if (exit_) return {};
    if (later_.empty()) {
      changed_.wait(lock);
      continue;
    }
    const Nanoseconds due = later_.begin()->first, now = clock_.now();
    if (due > now) {
      changed_.wait_for(lock, std::chrono::nanoseconds{due - now});
      continue;
    }
    task = std::move(later_.begin()->second);
    later_.erase(later_.begin());
    return task;
  }
}

void Loop::loop() {
  std::unique_lock lock{mutex_};
  while (Task task = next(lock)) {
    lock.unlock();
    task();
    task = {};  // what it holds may want the lock
    lock.lock();
  }
}

}  // namespace bulkhead::device::xenbus
