// Waiting for one another, on one executor's thread: FIFO, fair, never from within the waker's call.
// What waits here must be awake before the object ends.
#pragma once
#include <utility>

#include "block/async/executor.h"

namespace bulkhead::block {

// A queue of coroutines that wait; the base of the rest.
class WaitList {
 public:
  explicit WaitList(Executor& executor) : executor_{executor} {}
  ~WaitList() { BH_ASSERT(first_ == nullptr); }
  WaitList(const WaitList&) = delete;
  WaitList& operator=(const WaitList&) = delete;

  bool empty() const { return first_ == nullptr; }
  auto wait() {  // co_await
    struct Awaiter {
      bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<> handle) {
        waiter.handle = handle;
        *list.last_ = &waiter;
        list.last_ = &waiter.next;
      }
      void await_resume() const noexcept {}
      WaitList& list;
      Ready waiter{};
    };
    return Awaiter{*this};
  }
  bool wake_one() {
    if (first_ == nullptr) return false;
    Ready* const waiter = std::exchange(first_, first_->next);
    if (first_ == nullptr) last_ = &first_;
    executor_.make_ready(*waiter);
    return true;
  }
  void wake_all() {
    while (wake_one()) {
    }
  }
  Executor& executor() const { return executor_; }

 private:
  Executor& executor_;
  Ready* first_ = nullptr;
  Ready** last_ = &first_;
};

// co_await mutex.lock() gives a guard. Needed only across awaits.
class AsyncMutex {
 public:
  class [[nodiscard]] Guard {
   public:
    Guard() = default;
    explicit Guard(AsyncMutex* mutex) : mutex_{mutex} {}
    Guard(Guard&& other) noexcept : mutex_{std::exchange(other.mutex_, nullptr)} {}
    Guard& operator=(Guard&& other) noexcept {
      std::swap(mutex_, other.mutex_);
      return *this;
    }
    ~Guard() { unlock(); }
    void unlock() {
      if (mutex_ != nullptr) std::exchange(mutex_, nullptr)->unlock();
    }

   private:
    AsyncMutex* mutex_ = nullptr;
  };

  explicit AsyncMutex(Executor& executor) : waiters_{executor} {}
  bool locked() const { return locked_; }
  Task<Guard> lock() {
    // Who is woken owns it already: nobody overtakes.
    if (std::exchange(locked_, true)) co_await waiters_.wait();
    co_return Guard{this};
  }

 private:
  void unlock() {
    if (!waiters_.wake_one()) locked_ = false;
  }
  bool locked_ = false;
  WaitList waiters_;
};

// Many readers or one writer, in the order of coming.
class AsyncSharedMutex {
 public:
  class [[nodiscard]] Guard {
   public:
    Guard() = default;
    Guard(AsyncSharedMutex* mutex, bool shared) : mutex_{mutex}, shared_{shared} {}
    Guard(Guard&& other) noexcept : mutex_{std::exchange(other.mutex_, nullptr)}, shared_{other.shared_} {}
    Guard& operator=(Guard&& other) noexcept {
      std::swap(mutex_, other.mutex_);
      std::swap(shared_, other.shared_);
      return *this;
    }
    ~Guard() { unlock(); }
    void unlock() {
      if (mutex_ != nullptr) std::exchange(mutex_, nullptr)->unlock(shared_);
    }

   private:
    AsyncSharedMutex* mutex_ = nullptr;
    bool shared_ = false;
  };

  explicit AsyncSharedMutex(Executor& executor) : turns_{executor}, waiters_{executor} {}
  Task<Guard> lock_shared() {
    AsyncMutex::Guard turn = co_await turns_.lock();
    while (writer_) co_await waiters_.wait();
    ++readers_;
    co_return Guard{this, true};
  }
  Task<Guard> lock() {
    AsyncMutex::Guard turn = co_await turns_.lock();
    while (writer_ || readers_ != 0) co_await waiters_.wait();
    writer_ = true;
    co_return Guard{this, false};
  }

 private:
  void unlock(bool shared) {
    if (shared)
      --readers_;
    else
      writer_ = false;
    waiters_.wake_all();  // at most one: the turn's holder
  }
  AsyncMutex turns_;
  WaitList waiters_;
  unsigned readers_ = 0;
  bool writer_ = false;
};

}  // namespace bulkhead::block
