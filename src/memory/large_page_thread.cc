#include "memory/large_page_thread.h"

#include <system_error>

#include "base/thread.h"
#include "memory/large_pages.h"

namespace bulkhead {

LargePageThread::~LargePageThread() {
  {
    Lock lock{mutex_};
    queue_.clear();
  }
  if (thread_.joinable()) thread_.join();
}

void LargePageThread::ask(void* at, u64 length) {
  {
    Lock lock{mutex_};
    for (u64 done = 0; done < length; done += kLargePage) queue_.push_back(static_cast<std::byte*>(at) + done);
    if (working_ || queue_.empty()) return;
    working_ = true;
  }
  if (thread_.joinable()) thread_.join();  // it has ended
  try {
    thread_ = start_thread("bh-large-pages", [this] { work(); });
  } catch (const std::system_error&) {
    Lock lock{mutex_};
    queue_.clear();
    working_ = false;
  }
}

void LargePageThread::work() {
  for (;;) {
    std::byte* next = nullptr;
    {
      Lock lock{mutex_};
      if (queue_.empty()) {
        working_ = false;
        return;
      }
      next = queue_.front();
      queue_.pop_front();
    }
    make_large(next, kLargePage);
  }
}

}  // namespace bulkhead
