#include "block/job/backup_job.h"

#include "base/log.h"
#include "block/job/chain.h"
#include "block/tools/session.h"

namespace bulkhead::block {

using tools::failed;

Task<Result<void>> BackupJob::prepare() {
  source_ = disk().root();
  total_ = disk().size_bytes();
  if (!request().bitmap.empty()) {
    recorder_ = tools::as_qcow2(source_.get());
    if (recorder_ == nullptr) co_return fail("'{}' is a raw image: it has no bitmaps", source_->name());
    BH_CO_TRY(recorder_->judge_recording(request().bitmap));
  }
  BH_CO_ASSIGN(target_, co_await open_target(&executor(), &request(), source_.get()));
  target_is_zero_ = !request().existing && request().sync == JobSync::kFull;  // else it shows what is below
  if (request().sync == JobSync::kTop) shared_ = base_ = share_backing(source_.get(), target_.get());
  if (request().sync == JobSync::kNone) {
    tools::as_qcow2(target_.get())->adopt_backing(source_);
    shared_ = source_.get();
  }
  co_return Result<void>{};
}

Task<u64> BackupJob::reach(u64 offset, u64 length) {
  co_return co_await empty_reach(source_.get(), base_, offset, length, kPiece);
}

// Each chunk is copied once, so the target's are as they were made.
Task<CopyJob::Copied> BackupJob::copy_range(u64 offset, u64 length, std::span<std::byte> memory) {
  const RangeCopied one =
      co_await copy_between({source_.get(), base_, target_.get()}, offset, length, target_is_zero_, memory);
  // What was begun there may not be zeroes any more.
  if (one.status != IoStatus::kOk) target_is_zero_ = false;
  co_return Copied{one.status, one.at_target ? target_.get() : source_.get(), one.at_target, one.bytes};
}

Task<IoStatus> BackupJob::change(Change* change) {
  if (!ended() && todo().any(change->offset, change->length)) co_await save_first(change);
  co_return co_await filter()->forward(change);
}

Task<void> BackupJob::save_first(const Change* change) {
  const u64 begin = align_down(change->offset, todo().chunk());
  const u64 end = std::min(align_up(change->offset + change->length, todo().chunk()), disk().size_bytes());
  AlignedMemory memory{std::min(end - begin, kPiece)};
  if (!memory) fail_with("no memory to copy with");
  RangeLock::Hold hold{ranges(), begin, end - begin, RangeLock::Mode::kExclusive};
  co_await hold.acquire();
  while (!ended()) {
    const Copied done = co_await copy_marked(begin, end - begin, memory.bytes());
    if (done.status == IoStatus::kOk) co_return;
    note(done, done.at_target ? "writing" : "reading");
    // What the guest overwrites now is lost to the copy: there is no later, so the job waits to be resumed, or fails.
    const bool stops =
        (done.at_target ? request().on_target_error : request().on_source_error) == JobErrorAction::kStop;
    if (!stops) fail_with("what the guest changed could not be copied first: " + why().message);
    while (halted() && !ended()) co_await wait_event();
  }
}

// False: it has ended otherwise.
Task<bool> BackupJob::wait_told() {
  set_ready();
  while (!ended() && (!complete_wanted() || halted())) co_await wait_event();
  co_return !ended();
}

// The moment: the disk is paused.
Task<Result<void>> BackupJob::begin() {
  if (recorder_ == nullptr) {
    todo().set(0, disk().size_bytes());
    co_return Result<void>{};
  }
  auto bits = recorder_->take_recorded(request().bitmap);
  if (!bits) co_return std::unexpected(bits.error());
  taken_ = std::move(*bits);
  const u64 grain = recorder_->recording_grain(request().bitmap);
  for (u64 i = 0; i < taken_.size(); ++i)
    if (taken_[i]) todo().set(i * grain, std::min(grain, disk().size_bytes() - i * grain));
  total_ = todo().remaining();
  co_return Result<void>{};
}

Task<Result<void>> BackupJob::work() {
  co_await disk().pause();
  Result<void> begun = co_await begin();
  if (begun) co_await put_filter();
  disk().resume();
  bool whole = false;
  if (begun && request().sync == JobSync::kNone)
    whole = co_await wait_told();
  else if (begun)
    whole = co_await copy_all();
  co_await take_filter();
  set_completing();
  if (whole) {
    const IoStatus status = co_await target_->flush();
    if (status != IoStatus::kOk) begun = std::unexpected(failed(*target_, "flushing", status));
  } else if (begun) {
    begun = std::unexpected(why());
  }
  if (shared_ != nullptr) detach_backing(target_.get(), shared_);
  const IoStatus closed = co_await close_graph(target_);
  if (begun && closed != IoStatus::kOk) begun = std::unexpected(failed(*target_, "closing", closed));
  if (!begun && recorder_ != nullptr) recorder_->give_back_recorded(request().bitmap, taken_);
  source_.reset();
  target_.reset();
  co_return begun;
}

}  // namespace bulkhead::block
