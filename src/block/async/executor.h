// One disk's thread: runs the coroutines of its nodes, waits for the host's I/O, and takes work from other threads.
//
// Everything that a disk's format code does is done here, one piece at a time, between two awaits; it needs no locks.
// I/O goes through io_uring, or through a few threads where io_uring is forbidden; both look the same from here.
// Threads: post(), spawn_from() and run() from any thread but ours; the awaitables and the rest on ours only.
#pragma once
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <semaphore>
#include <string>
#include <thread>

#include "base/clock.h"
#include "base/fd.h"
#include "base/result.h"
#include "block/async/io_engine.h"
#include "block/async/task.h"

namespace bulkhead::block {

// Something that waits for its turn on the executor's thread. Lives in whoever waits.
struct Ready {
  Ready* next = nullptr;
  std::coroutine_handle<> handle;
};

// Work from another thread. Posted once at a time; lives until it has run.
class Posted {
 public:
  virtual ~Posted() = default;
  virtual void run_posted() = 0;

 private:
  friend class Executor;
  Posted* next_ = nullptr;
};

struct ExecutorOptions {
  std::string name = "bh-disk";  // of the thread, at most 15 characters
  IoEngineKind engine = IoEngineKind::kAuto;
  unsigned helpers = 8;  // threads for calls that block, at most; started when needed
};

class Executor {
 public:
  // Errors: no thread, or io_uring asked for by name and refused by the host.
  static Result<std::unique_ptr<Executor>> create(ExecutorOptions options = {});
  // Waits until all coroutines that wait for I/O or time have gone on; who waits for anything else is forgotten, and
  // must not be there.
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  std::string_view engine_name() const { return engine_->name(); }  // "io_uring" or "threads"
  bool on_thread() const { return std::this_thread::get_id() == thread_.get_id(); }

  // --- from any thread
  void post(Posted& work);
  void post(std::function<void()> work);
  // Runs a task there and waits for its end. Not on the executor's own thread.
  template <class T>
  T run(Task<T> task);
  // The same for a plain function.
  void run(const std::function<void()>& function);

  // --- on the executor's thread
  // Begins a task that nobody awaits. It is counted: the executor does not end before it has.
  void spawn(Task<void> task);
  void make_ready(Ready& waiter);  // resumed soon, in order, never from within this call
  // Runs `work` when the coroutines that are ready now have run, before I/O is waited for: once for many. Not an object
  // that is posted, too.
  void at_turn_end(Posted& work);
  // co_await io(op): runs the host call; op.result is its result, or -errno.
  auto io(IoOp& op);
  // co_await call(f): runs `f`, which may block, on a helper thread. `f` outlives the await.
  Task<void> call(std::function<void()>& function);
  auto yield();                            // co_await: lets everybody else who is ready go first
  auto sleep_until(Nanoseconds deadline);  // co_await
  auto sleep_for(Nanoseconds time);        // co_await
  Nanoseconds now() const { return clock_.now(); }

 private:
  using Timers = std::multimap<Nanoseconds, Ready*>;
  struct IoAwaiter;
  struct YieldAwaiter;
  struct SleepAwaiter;
  template <class T>
  static Detached finish(Task<T> task, std::optional<T>* result, std::binary_semaphore* done);
  static Detached finish(Task<void> task, std::binary_semaphore* done);
  static Detached own(Executor* self, Task<void> task);

  explicit Executor(ExecutorOptions options) : options_{std::move(options)} {}
  void loop();
  bool run_posted();
  bool run_ready();
  bool run_turn_end();
  void run_timers();
  void wait();
  bool idle() const { return in_flight_ == 0 && spawned_ == 0 && timers_.empty() && first_ready_ == nullptr; }

  ExecutorOptions options_;
  HostClock clock_;
  std::unique_ptr<IoEngine> engine_;
  Ready* first_ready_ = nullptr;
  Ready** last_ready_ = &first_ready_;
  Posted* turn_end_ = nullptr;
  Timers timers_;
  u64 in_flight_ = 0, spawned_ = 0;
  alignas(64) std::atomic<Posted*> posted_{nullptr};
  std::atomic<bool> asleep_{false}, stop_{false};
  UniqueFd wake_;
  std::thread thread_;
};

struct Executor::IoAwaiter final : IoCompletion {
  IoAwaiter(Executor& owner, IoOp& what) : executor{owner}, op{what} {}
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    waiter.handle = handle;
    op.completion = this;
    ++executor.in_flight_;
    executor.engine_->submit(op);
  }
  i64 await_resume() const noexcept { return op.result; }
  void io_done() override {
    --executor.in_flight_;
    executor.make_ready(waiter);
  }
  Executor& executor;
  IoOp& op;
  Ready waiter;
};
inline auto Executor::io(IoOp& op) { return IoAwaiter{*this, op}; }

struct Executor::YieldAwaiter {
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    waiter.handle = handle;
    executor.make_ready(waiter);
  }
  void await_resume() const noexcept {}
  Executor& executor;
  Ready waiter{};
};
inline auto Executor::yield() { return YieldAwaiter{*this}; }

struct Executor::SleepAwaiter {
  bool await_ready() const noexcept { return executor.now() >= deadline; }
  void await_suspend(std::coroutine_handle<> handle) {
    waiter.handle = handle;
    executor.timers_.emplace(deadline, &waiter);
  }
  void await_resume() const noexcept {}
  Executor& executor;
  Nanoseconds deadline;
  Ready waiter{};
};
inline auto Executor::sleep_until(Nanoseconds deadline) { return SleepAwaiter{*this, deadline}; }
inline auto Executor::sleep_for(Nanoseconds time) { return SleepAwaiter{*this, now() + time}; }

template <class T>
Detached Executor::finish(Task<T> task, std::optional<T>* result, std::binary_semaphore* done) {
  {
    Task<T> owned = std::move(task);  // ends, arguments and all, before the caller goes on
    result->emplace(co_await std::move(owned));
  }
  done->release();
}

template <class T>
T Executor::run(Task<T> task) {
  std::binary_semaphore done{0};
  if constexpr (std::is_void_v<T>) {
    post([&] { finish(std::move(task), &done); });
    done.acquire();
  } else {
    std::optional<T> result;
    post([&] { finish(std::move(task), &result, &done); });
    done.acquire();
    return std::move(*result);
  }
}

}  // namespace bulkhead::block
