#include "block/job/job.h"

namespace bulkhead::block {

namespace {
constexpr Nanoseconds kLook = 20'000'000;  // how often who waits for time looks whether it is still wanted
}

Job::Job(Disk& disk, JobRequest request)
    : disk_{disk}, request_{std::move(request)}, events_{disk.executor()}, ends_{disk.executor()} {
  set_speed(request_.speed);
  complete_wanted_ = request_.auto_complete;
}

void Job::start(OnChange on_change) {
  on_change_ = std::move(on_change);
  executor().spawn(live());
}

Task<void> Job::live() {
  const Result<void> result = co_await work();
  if (!result && !cancelled_) {
    failed_ = true;
    last_error_ = result.error().message;
  }
  cancelled_ = cancelled_ && !result;  // too late: it was whole
  concluded_ = true;
  tell();
  ends_.wake_all();
}

JobStatus Job::status() const {
  JobStatus out;
  out.id = request_.id;
  out.kind = request_.kind;
  out.state = concluded_    ? JobState::kConcluded
              : completing_ ? JobState::kCompleting
              : stopped_    ? JobState::kStopped
              : paused_     ? JobState::kPaused
              : ready_      ? JobState::kReady
                            : JobState::kRunning;
  out.total = total_bytes();
  out.done = concluded_ && !cancelled_ && !failed_ ? out.total : std::min(done_bytes(), out.total);
  out.speed = request_.speed;
  out.errors = errors_;
  out.file = file();
  out.last_error = last_error_;
  out.cancelled = cancelled_;
  out.failed = failed_;
  out.pivoted = pivoted_;
  return out;
}

Result<void> Job::pause() {
  if (concluded_) return fail("the job '{}' has ended", id());
  paused_ = true;
  return {};
}

Result<void> Job::resume() {
  if (concluded_) return fail("the job '{}' has ended", id());
  paused_ = stopped_ = false;
  wake();
  woken();
  return {};
}

Result<void> Job::complete() {
  if (concluded_) return fail("the job '{}' has ended", id());
  if (!must_be_completed()) return fail("the job '{}' completes by itself", id());
  if (!ready_) return fail("the job '{}' is not ready yet", id());
  complete_wanted_ = true;
  wake();
  woken();
  return {};
}

void Job::cancel() {
  if (concluded_) return;
  cancelled_ = true;
  wake();
  woken();
}

void Job::set_speed(u64 bytes_per_second) {
  request_.speed = bytes_per_second;
  bucket_ = TokenBucket{{bytes_per_second, 0}};
}

Task<void> Job::wait_concluded() {
  while (!concluded_) co_await ends_.wait();
}

void Job::set_ready() {
  if (!std::exchange(ready_, true)) tell();
}

void Job::set_pivoted() {
  completing_ = pivoted_ = true;
  tell();
}

Task<bool> Job::may_go() {
  while (!ended()) {
    if (halted()) {
      co_await events_.wait();
      continue;
    }
    const Nanoseconds wait = bucket_.wait(executor().now());
    if (wait == 0) break;
    co_await executor().sleep_for(std::min(wait, kLook));
  }
  co_return !ended();
}

void Job::error(std::string text, bool at_target) {
  ++errors_;
  const JobErrorAction action = at_target ? request_.on_target_error : request_.on_source_error;
  if (action == JobErrorAction::kReport) return fail_with(std::move(text));
  last_error_ = std::move(text);
  if (action != JobErrorAction::kStop || std::exchange(stopped_, true)) return;
  tell();
}

void Job::fail_with(std::string text) {
  if (!std::exchange(failed_, true)) last_error_ = std::move(text);
  wake();
  woken();
}

}  // namespace bulkhead::block
