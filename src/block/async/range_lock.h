// Byte ranges held by requests, on one executor's thread: overlapping ranges exclude one another unless both are
// shared. Fair: a range waits for every conflicting one that came before it, held or still waiting.
#pragma once
#include "block/async/wait.h"

namespace bulkhead::block {

class RangeLock {
 public:
  enum class Mode : u8 { kShared, kExclusive };

 private:
  struct Entry {
    u64 begin = 0, end = 0;
    Mode mode = Mode::kShared;
    unsigned blockers = 0;  // conflicting entries before us
    Entry *previous = nullptr, *next = nullptr;
    Ready waiter{};
  };

 public:
  // Holds a range from co_await acquire() to its end. Stays where it is: declare it, then await.
  //   RangeLock::Hold hold{locks, offset, length, RangeLock::Mode::kExclusive};
  //   co_await hold.acquire();
  class Hold {
   public:
    Hold(RangeLock& lock, u64 offset, u64 length, Mode mode);
    ~Hold() { release(); }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    // Takes its place in the order of coming at once; waits where it has to.
    auto acquire();
    void release();

   private:
    friend class RangeLock;
    RangeLock& lock_;
    Entry entry_;
    bool listed_ = false;
  };

  explicit RangeLock(Executor& executor) : executor_{executor} {}
  ~RangeLock() { BH_ASSERT(first_ == nullptr); }
  bool empty() const { return first_ == nullptr; }

 private:
  static bool conflict(const Entry& a, const Entry& b) {
    return a.begin < b.end && b.begin < a.end && (a.mode == Mode::kExclusive || b.mode == Mode::kExclusive);
  }
  void add(Entry& entry);
  void remove(Entry& entry);

  Executor& executor_;
  Entry *first_ = nullptr, *last_ = nullptr;
};

inline auto RangeLock::Hold::acquire() {
  struct Awaiter {
    bool await_ready() const noexcept {
      hold.lock_.add(hold.entry_);
      hold.listed_ = true;
      return hold.entry_.blockers == 0;
    }
    void await_suspend(std::coroutine_handle<> handle) const noexcept { hold.entry_.waiter.handle = handle; }
    void await_resume() const noexcept {}
    Hold& hold;
  };
  return Awaiter{*this};
}

}  // namespace bulkhead::block
