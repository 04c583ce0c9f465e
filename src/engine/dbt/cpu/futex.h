// Locks and waits made of integers and system calls only, so that they may be used while the guest's vector registers
// are live in the host's (the C library's own give no such promise).
#pragma once
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "base/ints.h"

namespace bulkhead::engine::dbt {

inline constexpr u64 kForever = ~u64{0};

// Sleeps while *word == expected, for at most `nanoseconds` (kForever: no limit). Wakes up spuriously too.
inline void futex_wait(std::atomic<u32>& word, u32 expected, u64 nanoseconds) {
  timespec limit{static_cast<time_t>(nanoseconds / 1'000'000'000), static_cast<long>(nanoseconds % 1'000'000'000)};
  ::syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, nanoseconds == kForever ? nullptr : &limit, nullptr, 0);
}
inline void futex_wake(std::atomic<u32>& word, int count = 1) {
  ::syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
}

// 0 free, 1 taken, 2 taken and somebody may be waiting.
class FutexMutex {
 public:
  void lock() {
    u32 expected = 0;
    if (word_.compare_exchange_strong(expected, 1, std::memory_order_acquire)) return;
    while (word_.exchange(2, std::memory_order_acquire) != 0) futex_wait(word_, 2, kForever);
  }
  void unlock() {
    if (word_.exchange(0, std::memory_order_release) == 2) futex_wake(word_);
  }

 private:
  std::atomic<u32> word_{0};
};

class FutexLock {
 public:
  explicit FutexLock(FutexMutex& mutex) : mutex_{mutex} { mutex_.lock(); }
  ~FutexLock() { mutex_.unlock(); }
  FutexLock(const FutexLock&) = delete;
  FutexLock& operator=(const FutexLock&) = delete;

 private:
  FutexMutex& mutex_;
};

}  // namespace bulkhead::engine::dbt
