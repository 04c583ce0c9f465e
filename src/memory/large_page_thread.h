// make_large() beside whoever will soon use the memory: where the host must first get large pages from somewhere, that
// takes milliseconds for each. The thread lives as long as there is work. ask() by one thread at a time.
#pragma once
#include <cstddef>
#include <deque>
#include <thread>

#include "base/ints.h"
#include "base/sync.h"

namespace bulkhead {

class LargePageThread {
 public:
  LargePageThread() = default;
  LargePageThread(const LargePageThread&) = delete;
  LargePageThread& operator=(const LargePageThread&) = delete;
  ~LargePageThread();  // what has not begun is left as it is; the memory may go then

  // As make_large(). If the host gives no thread, nothing happens.
  void ask(void* at, u64 length);

 private:
  void work();

  Mutex mutex_;
  std::deque<std::byte*> queue_ BH_GUARDED_BY(mutex_);  // a large page each
  bool working_ BH_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace bulkhead
