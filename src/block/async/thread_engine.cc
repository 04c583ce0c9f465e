// The engine without io_uring: every call on a helper thread.
#include <poll.h>
#include <unistd.h>

#include <ctime>
#include <optional>

#include "block/async/helpers.h"

namespace bulkhead::block {
namespace {

class ThreadEngine final : public IoEngine {
 public:
  explicit ThreadEngine(unsigned helpers) : count_{helpers} {}
  std::string_view name() const override { return "threads"; }
  Result<void> start(int wake_fd) override {
    wake_fd_ = wake_fd;
    helpers_.emplace(count_, wake_fd);
    return {};
  }
  void submit(IoOp& op) override { helpers_->submit(op); }
  void poll() override {
    for (IoOp* op = helpers_->finished(); op != nullptr;) std::exchange(op, op->next)->completion->io_done();
  }
  void wait(Nanoseconds timeout) override {
    pollfd wake{wake_fd_, POLLIN, 0};
    const timespec limit{static_cast<time_t>(timeout / 1'000'000'000), static_cast<long>(timeout % 1'000'000'000)};
    if (::ppoll(&wake, 1, timeout == ~Nanoseconds{0} ? nullptr : &limit, nullptr) > 0) {
      u64 count;
      if (::read(wake_fd_, &count, sizeof count) < 0) count = 0;
    }
    poll();
  }

 private:
  const unsigned count_;
  int wake_fd_ = -1;
  std::optional<Helpers> helpers_;
};

}  // namespace

std::unique_ptr<IoEngine> make_thread_engine(unsigned helpers) { return std::make_unique<ThreadEngine>(helpers); }

}  // namespace bulkhead::block
