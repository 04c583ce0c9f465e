// The engine on io_uring. Calls that io_uring cannot do without blocking us go to helper threads.
#include <liburing.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <utility>

#include "base/assert.h"
#include "block/async/helpers.h"

namespace bulkhead::block {
namespace {

constexpr unsigned kEntries = 256;
constexpr unsigned kSubmitAtOnce = 4;
// With many in flight we wait a moment for several, so as not to wake up for each. Needs Linux 6.12.
constexpr unsigned kManyInFlight = 8, kMostAtOnce = 8, kMomentMicroseconds = 60;
constexpr unsigned kFeatureMinimumWait = 1u << 15;  // IORING_FEAT_MIN_TIMEOUT

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
    gathers_ = (ring_.features & kFeatureMinimumWait) != 0;
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
    ++in_flight_;
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
    if (gathers_ && in_flight_ >= kManyInFlight) return gather(timeout);
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
  void gather(Nanoseconds timeout) {
    if (::io_uring_sq_ready(&ring_) != 0) ::io_uring_submit(&ring_);
    __kernel_timespec limit{static_cast<long long>(timeout / 1'000'000'000),
                            static_cast<long long>(timeout % 1'000'000'000)};
    io_uring_getevents_arg arg{};
    arg.pad = kMomentMicroseconds;  // min_wait_usec in later headers
    if (timeout != ~Nanoseconds{0}) arg.ts = reinterpret_cast<u64>(&limit);
    const bool registered = ring_.enter_ring_fd != ring_.ring_fd;
    const unsigned flags =
        IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG | (registered ? IORING_ENTER_REGISTERED_RING : 0u);
    ::io_uring_enter2(static_cast<unsigned>(ring_.enter_ring_fd), 0, std::min(in_flight_ / 4, kMostAtOnce), flags,
                      reinterpret_cast<sigset_t*>(&arg), sizeof arg);
    reap();
  }

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
      if (auto* const op = static_cast<IoOp*>(::io_uring_cqe_get_data(cqe))) {
        --in_flight_;
        complete(*op, cqe->res);
      } else {
        woken = true;
      }
    }
    ::io_uring_cq_advance(&ring_, count);
    if (!woken) return;
    arm_wake();
    for (IoOp* op = helpers_->finished(); op != nullptr;) std::exchange(op, op->next)->completion->io_done();
  }

  const unsigned count_;
  io_uring ring_{};
  bool ready_ = false, gathers_ = false;
  unsigned in_flight_ = 0;  // but for the wake-up
  int wake_fd_ = -1;
  u64 wake_count_ = 0;
  std::optional<Helpers> helpers_;
};

}  // namespace

std::unique_ptr<IoEngine> make_uring_engine(unsigned helpers) { return std::make_unique<UringEngine>(helpers); }

}  // namespace bulkhead::block
