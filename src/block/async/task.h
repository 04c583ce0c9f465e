// Coroutines of the block layer. Task<T> is lazy: nothing runs before it is awaited, and its awaiter goes on where it
// ended, on the same thread. A Task belongs to one executor's thread and wants no locks.
//
// A task that ends without ever waiting returns to its awaiter without a resume: no loop of such tasks grows the stack,
// at any optimisation level.
//
// g++ 12 knows coroutines, with faults. Keep to this:
//  - no co_await inside ?:, &&, || or a condition with temporaries: await into a variable, then judge it;
//  - no initializer list and no temporary with a destructor among the arguments of an awaited call: name it first;
//  - parameters by value or as pointers/references to what outlives the await; no capturing lambda as a coroutine.
#pragma once
#include <coroutine>
#include <optional>
#include <utility>

#include "base/assert.h"
#include "base/result.h"
#include "block/async/frame_pool.h"
#include "block/status.h"

namespace bulkhead::block {

template <class T>
class Task;

namespace detail {

enum class TaskState : unsigned char { kNew, kStarting, kWaiting, kDone };

struct PromiseBase {
  static void* operator new(std::size_t size) { return frame_pool_allocate(size); }
  static void operator delete(void* at, std::size_t size) { frame_pool_free(at, size); }

  struct FinalAwaiter {
    bool await_ready() const noexcept { return false; }
    template <class Promise>
    void await_suspend(std::coroutine_handle<Promise> self) const noexcept {
      PromiseBase& promise = self.promise();
      if (std::exchange(promise.state, TaskState::kDone) == TaskState::kStarting) return;
      promise.continuation.resume();  // may destroy our frame: nothing behind this
    }
    void await_resume() const noexcept {}
  };
  std::suspend_always initial_suspend() const noexcept { return {}; }
  FinalAwaiter final_suspend() const noexcept { return {}; }
  void unhandled_exception() const noexcept { BH_ASSERT(!"an exception left a coroutine"); }

  std::coroutine_handle<> continuation;
  TaskState state = TaskState::kNew;
};

// What BH_IO_TRY returns: a status, or the result that carries it.
struct Failed {
  IoStatus status;
};

template <class T>
struct Promise final : PromiseBase {
  Task<T> get_return_object() noexcept;
  void return_value(Failed failed) {
    if constexpr (std::is_same_v<T, IoStatus>)
      value.emplace(failed.status);
    else
      value.emplace(std::unexpect, failed.status);
  }
  template <class U>
  void return_value(U&& result) {
    value.emplace(std::forward<U>(result));
  }
  T take() { return std::move(*value); }
  std::optional<T> value;
};

template <>
struct Promise<void> final : PromiseBase {
  Task<void> get_return_object() noexcept;
  void return_void() const noexcept {}
  void take() const noexcept {}
};

}  // namespace detail

template <class T = void>
class [[nodiscard]] Task {
 public:
  using promise_type = detail::Promise<T>;
  using Handle = std::coroutine_handle<promise_type>;

  Task(Task&& other) noexcept : handle_{std::exchange(other.handle_, {})} {}
  Task& operator=(Task&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Task() {
    if (handle_) handle_.destroy();
  }

  // Awaited once. Awaiting starts it.
  auto operator co_await() && noexcept {
    struct Awaiter {
      Handle handle;
      bool await_ready() const noexcept { return false; }
      bool await_suspend(std::coroutine_handle<> awaiting) const noexcept {
        auto& promise = handle.promise();
        promise.continuation = awaiting;
        promise.state = detail::TaskState::kStarting;
        handle.resume();
        if (promise.state == detail::TaskState::kDone) return false;
        promise.state = detail::TaskState::kWaiting;
        return true;
      }
      T await_resume() const { return handle.promise().take(); }
    };
    return Awaiter{handle_};
  }

 private:
  friend promise_type;
  explicit Task(Handle handle) noexcept : handle_{handle} {}
  Handle handle_;
};

namespace detail {
template <class T>
Task<T> Promise<T>::get_return_object() noexcept {
  return Task<T>{std::coroutine_handle<Promise<T>>::from_promise(*this)};
}
inline Task<void> Promise<void>::get_return_object() noexcept {
  return Task<void>{std::coroutine_handle<Promise<void>>::from_promise(*this)};
}
}  // namespace detail

// A coroutine that owns itself: runs at once up to its first wait, and frees itself at its end.
struct Detached {
  struct promise_type {
    static void* operator new(std::size_t size) { return frame_pool_allocate(size); }
    static void operator delete(void* at, std::size_t size) { frame_pool_free(at, size); }
    Detached get_return_object() const noexcept { return {}; }
    std::suspend_never initial_suspend() const noexcept { return {}; }
    std::suspend_never final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    void unhandled_exception() const noexcept { BH_ASSERT(!"an exception left a coroutine"); }
  };
};

}  // namespace bulkhead::block

// In a coroutine that returns IoStatus or IoResult: goes on only if the status, awaited or plain, is kOk.
#define BH_IO_TRY(expression)                                                                                    \
  do {                                                                                                           \
    const ::bulkhead::block::IoStatus bh_status_ = (expression);                                                 \
    if (bh_status_ != ::bulkhead::block::IoStatus::kOk) co_return ::bulkhead::block::detail::Failed{bh_status_}; \
  } while (false)

// BH_IO_ASSIGN(auto x, co_await f()): x = *f(), or return its status, in the same coroutines.
#define BH_IO_ASSIGN(target, expression) BH_IO_ASSIGN_I(target, expression, __COUNTER__)
#define BH_IO_ASSIGN_I(target, expression, n) BH_IO_ASSIGN_II(target, expression, n)
#define BH_IO_ASSIGN_II(target, expression, n)                                            \
  auto bh_assign_##n = (expression);                                                      \
  if (!bh_assign_##n) co_return ::bulkhead::block::detail::Failed{bh_assign_##n.error()}; \
  target = std::move(*bh_assign_##n)

// BH_TRY and BH_ASSIGN of base/result.h, in a coroutine that returns Result<T>.
#define BH_CO_TRY(expression)                                                  \
  do {                                                                         \
    auto bh_result_ = (expression);                                            \
    if (!bh_result_) co_return std::unexpected(std::move(bh_result_.error())); \
  } while (false)
#define BH_CO_ASSIGN(target, expression) BH_CO_ASSIGN_I(target, expression, __COUNTER__)
#define BH_CO_ASSIGN_I(target, expression, n) BH_CO_ASSIGN_II(target, expression, n)
#define BH_CO_ASSIGN_II(target, expression, n)                                     \
  auto bh_assign_##n = (expression);                                               \
  if (!bh_assign_##n) co_return std::unexpected(std::move(bh_assign_##n.error())); \
  target = std::move(*bh_assign_##n)
