#include "block/disk/disk.h"

#include "base/bits.h"

namespace bulkhead::block {

struct Disk::Request {
  RequestKind kind;
  u64 offset = 0, length = 0;
  Buffers data;
  WriteFlags flags = WriteFlags::kNone;
};

Result<std::unique_ptr<Disk>> Disk::create(std::unique_ptr<Executor> executor, NodePtr root, DiskOptions options) {
  if (root->size() == 0 || !is_aligned(root->size(), kSectorSize))
    return fail("disk '{}' has {} bytes; it must be one sector of {} or more, and whole ones", root->name(),
                root->size(), kSectorSize);
  return std::unique_ptr<Disk>{new Disk{std::move(executor), std::move(root), std::move(options)}};
}

Disk::Disk(std::unique_ptr<Executor> executor, NodePtr root, DiskOptions options)
    : executor_{std::move(executor)},
      root_{std::move(root)},
      options_{std::move(options)},
      size_{root_->size()},
      read_only_{root_->read_only()},
      supports_discard_{root_->supports_discard()},
      optimal_transfer_{root_->limits().optimal_transfer},
      request_alignment_{root_->limits().request_alignment},
      throttle_{*executor_},
      held_{*executor_},
      quiet_{*executor_} {
  throttle_.set(options_.limits);
}

Disk::~Disk() { executor_->run(shut_down()); }

Task<void> Disk::shut_down() {
  closing_ = true;
  cancel_waiting();
  co_await pause();
  while (throttle_.waiting() != 0 || held_back_ != 0 || waiting_) co_await executor_->sleep_for(1'000'000);
  co_await close_graph(root_);
  root_.reset();
}

void Disk::set_limits(const ThrottleLimits& limits) {
  executor_->post([this, limits] { throttle_.set(limits); });
}

void Disk::set_on_wait(std::function<void(IoStatus)> on_wait) {
  executor_->run([&] { on_wait_ = std::move(on_wait); });
}

void Disk::retry_now() {
  executor_->post([this] { retry_at_ = 0; });
}

Task<IoStatus> Disk::read(u64 offset, Buffers data) {
  Request request{RequestKind::kRead, offset, total_bytes(data), data};
  co_return co_await run(request);
}

Task<IoStatus> Disk::write(u64 offset, Buffers data, WriteFlags flags) {
  if (options_.cache == CacheMode::kWriteThrough) flags = flags | WriteFlags::kFua;
  if (options_.cache == CacheMode::kUnsafe) flags = WriteFlags::kNone;
  Request request{RequestKind::kWrite, offset, total_bytes(data), data, flags};
  co_return co_await run(request);
}

Task<IoStatus> Disk::flush() {
  if (options_.cache == CacheMode::kUnsafe) co_return IoStatus::kOk;
  Request request{RequestKind::kFlush, 0, 0, {}};
  co_return co_await run(request);
}

Task<IoStatus> Disk::discard(u64 offset, u64 length) {
  Request request{RequestKind::kDiscard, offset, length, {}};
  co_return co_await run(request);
}

Task<IoStatus> Disk::write_zeroes(u64 offset, u64 length, WriteFlags flags) {
  if (options_.cache == CacheMode::kWriteThrough) flags = flags | WriteFlags::kFua;
  Request request{RequestKind::kWriteZeroes, offset, length, {}, flags};
  co_return co_await run(request);
}

Task<IoStatus> Disk::perform(Request& request) {
  switch (request.kind) {
    case RequestKind::kRead:
      return root_->read(request.offset, request.data);
    case RequestKind::kWrite:
      return root_->write(request.offset, request.data, request.flags);
    case RequestKind::kFlush:
      return root_->flush();
    case RequestKind::kDiscard:
      return root_->discard(request.offset, request.length);
    case RequestKind::kWriteZeroes:
    case RequestKind::kCount:
      break;
  }
  return root_->write_zeroes(request.offset, request.length, request.flags);
}

Task<IoStatus> Disk::run(Request& request) {
  const u64 epoch = epoch_;
  while (true) {
    // Nearly always nothing is in the way.
    if (throttle_.active() || pauses_ != 0 || waiting_) {
      const bool go = co_await may_go(request, epoch);
      if (!go) co_return IoStatus::kCancelled;
    }
    ++in_flight_;
    const IoStatus status = co_await perform(request);
    if (--in_flight_ == 0) quiet_.wake_all();
    if (status == IoStatus::kOk) co_return status;
    switch (action_for(request, status)) {
      case ErrorAction::kReport:
        co_return status;
      case ErrorAction::kIgnore:
        co_return IoStatus::kOk;
      case ErrorAction::kWait:
      case ErrorAction::kWaitNoSpace:
        break;
    }
    if (epoch != epoch_) co_return status;
    if (std::exchange(waiting_, true)) continue;
    waits_for_ = status;
    if (on_wait_) on_wait_(status);
    executor_->spawn(retry_later());
  }
}

// What is wrong with the request itself, and not with the host, is always reported.
ErrorAction Disk::action_for(const Request& request, IoStatus status) const {
  if (status != IoStatus::kIoError && status != IoStatus::kNoSpace) return ErrorAction::kReport;
  const ErrorAction action = request.kind == RequestKind::kRead ? options_.on_read_error : options_.on_write_error;
  if (action == ErrorAction::kWaitNoSpace && status != IoStatus::kNoSpace) return ErrorAction::kReport;
  return action;
}

// False: cancelled.
Task<bool> Disk::may_go(const Request& request, u64 epoch) {
  if (throttle_.active() && request.kind != RequestKind::kFlush) {
    const auto direction = request.kind == RequestKind::kRead ? Direction::kRead : Direction::kWrite;
    const bool admitted = co_await throttle_.admit(direction, request.length);
    if (!admitted) co_return false;
  }
  while ((pauses_ != 0 || waiting_) && epoch == epoch_) {
    ++held_back_;
    co_await held_.wait();
    --held_back_;
  }
  co_return epoch == epoch_;
}

// A look at the time now and then, so that neither retry_now() nor the disk's end waits long.
Task<void> Disk::retry_later() {
  constexpr Nanoseconds kLook = 20'000'000;
  retry_at_ = executor_->now() + kRetryAfter;
  while (executor_->now() < retry_at_ && !closing_) co_await executor_->sleep_for(kLook);
  waiting_ = false;
  waits_for_ = IoStatus::kOk;
  if (on_wait_) on_wait_(IoStatus::kOk);
  held_.wake_all();
}

void Disk::cancel_waiting() {
  ++epoch_;
  throttle_.cancel_waiting();
  held_.wake_all();
}

Task<void> Disk::pause() {
  ++pauses_;
  while (in_flight_ != 0) co_await quiet_.wait();
}

void Disk::resume() {
  BH_ASSERT(pauses_ > 0);
  if (--pauses_ == 0) held_.wake_all();
}

void Disk::set_root(NodePtr root) {
  BH_ASSERT(pauses_ > 0 && in_flight_ == 0 && root->size() == size_bytes());
  root_ = std::move(root);
}

}  // namespace bulkhead::block
