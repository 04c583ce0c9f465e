// The engine on io_uring. Calls that io_uring cannot do without blocking us go to helper threads.
#include <liburing.h>

#include <atomic>
#include <optional>
#include <utility>

#include "base/assert.h"
#include "block/async/helpers.h"

namespace bulkhead::block {
namespace {

constexpr unsigned kEntries = 256;
constexpr unsigned kSubmitAtOnce = 4;

class UringEngine final : public IoEngine {
 public:
  explicit UringEngine(unsigned helpers) : count_{helpers} {}
  ~UringEngine() override {
    helpers_.reset();
    if (ready_) ::io_uring_queue_exit(&ring_);
  }
  std::string_view name() const override { return "io_uring"; }

  Result<void> start(int wake_fd) override {
    // A ring of one thread, whose completions are worked out when we ask for them and not by interrupting us, is the
    // cheapest; hosts before Linux 6.1 do not have it.
    int result = -EINVAL;
    for (const unsigned flags :
         {unsigned{IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG}, 0u}) {
      io_uring_params params{};
      params.flags = flags | IORING_SETUP_CQSIZE;
      params.cq_entries = 4 * kEntries;
      result = ::io_uring_queue_init_params(kEntries, &ring_, &params);
      if (result != -EINVAL) break;
    }
    if (result < 0) {
      errno = -result;
      return fail_errno("cannot use io_uring");
    }
    ready_ = true;
    wake_fd_ = wake_fd;
    helpers_.emplace(count_, wake_fd);
    ::io_uring_register_ring_fd(&ring_);  // saves a look-up a call; does not matter if it fails
    arm_wake();
    return {};
  }

  void submit(IoOp& op) override {
    if (op.kind == IoOp::Kind::kCall) return helpers_->submit(op);
    io_uring_sqe& sqe = next_entry();
    prepare(sqe, op);
    ::io_uring_sqe_set_data(&sqe, &op);
    // Some at a time, so that a host device that does one thing after another is not idle while we collect the next.
    if (::io_uring_sq_ready(&ring_) >= kSubmitAtOnce) ::io_uring_submit(&ring_);
  }

  void poll() override {
    const unsigned news = IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW;
    if (::io_uring_sq_ready(&ring_) != 0 || (std::atomic_ref{*ring_.sq.kflags}.load() & news) != 0)
      ::io_uring_submit_and_get_events(&ring_);
    reap();
  }

  void wait(Nanoseconds timeout) override {
    io_uring_cqe* first;
    if (timeout == ~Nanoseconds{0}) {
      ::io_uring_submit_and_wait(&ring_, 1);
    } else {
      __kernel_timespec limit{static_cast<long long>(timeout / 1'000'000'000),
                              static_cast<long long>(timeout % 1'000'000'000)};
      ::io_uring_submit_and_wait_timeout(&ring_, &first, 1, &limit, nullptr);
    }
    reap();
  }

 private:
  io_uring_sqe& next_entry() {
    io_uring_sqe* sqe;
    while ((sqe = ::io_uring_get_sqe(&ring_)) == nullptr) ::io_uring_submit(&ring_);
    return *sqe;
  }

  void arm_wake() {
    io_uring_sqe& sqe = next_entry();
    ::io_uring_prep_read(&sqe, wake_fd_, &wake_count_, sizeof wake_count_, 0);
    ::io_uring_sqe_set_data(&sqe, nullptr);
  }

  static void prepare(io_uring_sqe& sqe, const IoOp& op) {
    const auto count = static_cast<unsigned>(op.buffers.size());
    switch (op.kind) {
      case IoOp::Kind::kRead:
        // A single buffer saves the kernel's copy of the list.
        if (count == 1 && op.buffers[0].length <= ~u32{0})
          ::io_uring_prep_read(&sqe, op.fd, op.buffers[0].data, static_cast<u32>(op.buffers[0].length), op.offset);
        else
          ::io_uring_prep_readv(&sqe, op.fd, iovecs_of(op.buffers), count, op.offset);
        sqe.rw_flags = op.flags;
        break;
      case IoOp::Kind::kWrite:
        if (count == 1 && op.buffers[0].length <= ~u32{0})
          ::io_uring_prep_write(&sqe, op.fd, op.buffers[0].data, static_cast<u32>(op.buffers[0].length), op.offset);
        else
          ::io_uring_prep_writev(&sqe, op.fd, iovecs_of(op.buffers), count, op.offset);
        sqe.rw_flags = op.flags;
        break;
      case IoOp::Kind::kSync:
        ::io_uring_prep_fsync(&sqe, op.fd, IORING_FSYNC_DATASYNC);
        break;
      case IoOp::Kind::kAllocate:
        // Offset and length 0 wide: liburing takes them as off_t.
        ::io_uring_prep_fallocate(&sqe, op.fd, op.flags, static_cast<off_t>(op.offset), static_cast<off_t>(op.length));
        break;
      case IoOp::Kind::kCall:
        BH_ASSERT(false);
    }
  }

  void complete(IoOp& op, int result) {
    op.result = result;
    if (result == -EINTR || result == -EAGAIN) return submit(op);  // it was never begun
    op.completion->io_done();
  }

  void reap() {
    bool woken = false;
    unsigned head, count = 0;
    io_uring_cqe* cqe;
    io_uring_for_each_cqe(&ring_, head, cqe) {
      ++count;
      if (auto* const op = static_cast<IoOp*>(::io_uring_cqe_get_data(cqe)))
        complete(*op, cqe->res);
      else
        woken = true;
    }
    ::io_uring_cq_advance(&ring_, count);
    if (!woken) return;
    arm_wake();
    for (IoOp* op = helpers_->finished(); op != nullptr;) std::exchange(op, op->next)->completion->io_done();
  }

  const unsigned count_;
  io_uring ring_{};
  bool ready_ = false;
  int wake_fd_ = -1;
  u64 wake_count_ = 0;
  std::optional<Helpers> helpers_;
};

}  // namespace

std::unique_ptr<IoEngine> make_uring_engine(unsigned helpers) { return std::make_unique<UringEngine>(helpers); }

}  // namespace bulkhead::block
