#include "block/async/helpers.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <csignal>
#include <utility>

namespace bulkhead::block {

Helpers::~Helpers() {
  {
    const std::lock_guard lock{mutex_};
    exit_ = true;
  }
  wanted_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Helpers::submit(IoOp& op) {
  op.next = nullptr;
  bool another;
  {
    const std::lock_guard lock{mutex_};
    *last_ = &op;
    last_ = &op.next;
    another = ++waiting_ > idle_ && threads_.size() < most_;
  }
  // The executor's own thread has all signals blocked, and so have these.
  if (another) threads_.emplace_back([this] { loop(); });
  wanted_.notify_one();
}

IoOp* Helpers::finished() {
  const std::lock_guard lock{mutex_};
  return std::exchange(done_, nullptr);
}

void Helpers::loop() {
  ::pthread_setname_np(::pthread_self(), "bh-disk-help");
  std::unique_lock lock{mutex_};
  while (true) {
    ++idle_;
    wanted_.wait(lock, [&] { return exit_ || first_ != nullptr; });
    --idle_;
    if (first_ == nullptr) return;
    IoOp* const op = std::exchange(first_, first_->next);
    if (first_ == nullptr) last_ = &first_;
    --waiting_;
    lock.unlock();
    op->result = perform(*op);
    lock.lock();
    const bool first = done_ == nullptr;
    op->next = std::exchange(done_, op);
    if (!first) continue;
    const u64 one = 1;
    if (::write(wake_fd_, &one, sizeof one) < 0) continue;  // full: it is awake
  }
}

i64 Helpers::perform(const IoOp& op) {
  const auto offset = static_cast<off_t>(op.offset);
  const auto count = static_cast<int>(op.buffers.size());
  i64 result = 0;
  do {
    switch (op.kind) {
      case IoOp::Kind::kRead:
        result = ::preadv2(op.fd, iovecs_of(op.buffers), count, offset, op.flags);
        break;
      case IoOp::Kind::kWrite:
        result = ::pwritev2(op.fd, iovecs_of(op.buffers), count, offset, op.flags);
        break;
      case IoOp::Kind::kSync:
        result = ::fdatasync(op.fd);
        break;
      case IoOp::Kind::kAllocate:
        result = ::fallocate(op.fd, op.flags, offset, static_cast<off_t>(op.length));
        break;
      case IoOp::Kind::kCall:
        (*op.function)();
        break;
    }
  } while (result < 0 && errno == EINTR);
  return result < 0 ? -errno : result;
}

}  // namespace bulkhead::block
