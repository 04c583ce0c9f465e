// Threads that run host calls which block, for one executor. They start when there is work for them, and stay.
#pragma once
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "block/async/io_engine.h"

namespace bulkhead::block {

class Helpers {
 public:
  // `wake_fd` is written to when something has finished after finished() found nothing.
  Helpers(unsigned most, int wake_fd) : most_{most}, wake_fd_{wake_fd} {}
  ~Helpers();

  void submit(IoOp& op);  // the executor's thread
  // What has finished since the last call, as a list. The executor's thread.
  IoOp* finished();

  static i64 perform(const IoOp& op);  // the call itself, on this thread

 private:
  void loop();
  const unsigned most_;
  const int wake_fd_;
  std::mutex mutex_;
  std::condition_variable wanted_;
  IoOp* first_ = nullptr;
  IoOp** last_ = &first_;
  IoOp* done_ = nullptr;
  unsigned idle_ = 0, waiting_ = 0;
  bool exit_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace bulkhead::block
