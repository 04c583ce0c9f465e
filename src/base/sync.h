// Locks that clang's thread-safety analysis understands, and state that lives inside its lock.
#pragma once
#include <mutex>

#if defined(__clang__)
#define BH_TSA(x) __attribute__((x))
#else
#define BH_TSA(x)
#endif
#define BH_GUARDED_BY(m) BH_TSA(guarded_by(m))
#define BH_REQUIRES(...) BH_TSA(requires_capability(__VA_ARGS__))
#define BH_EXCLUDES(...) BH_TSA(locks_excluded(__VA_ARGS__))

namespace bulkhead {

class BH_TSA(capability("mutex")) Mutex {
 public:
  void lock() BH_TSA(acquire_capability()) { mutex_.lock(); }
  void unlock() BH_TSA(release_capability()) { mutex_.unlock(); }
  bool try_lock() BH_TSA(try_acquire_capability(true)) { return mutex_.try_lock(); }
  std::mutex& native() { return mutex_; }  // for std::condition_variable

 private:
  std::mutex mutex_;
};

class BH_TSA(scoped_lockable) Lock {
 public:
  explicit Lock(Mutex& mutex) BH_TSA(acquire_capability(mutex)) : mutex_{mutex} { mutex_.lock(); }
  ~Lock() BH_TSA(release_capability()) { mutex_.unlock(); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  Mutex& mutex_;
};

}  // namespace bulkhead
