#include "block/job/mirror_job.h"

#include "base/log.h"
#include "block/job/chain.h"
#include "block/tools/session.h"

namespace bulkhead::block {

using tools::failed;

Task<Result<void>> MirrorJob::prepare() {
  source_ = disk().root();
  Task<Result<void>> preparing = commits() ? prepare_commit() : prepare_mirror();
  const Result<void> prepared = co_await std::move(preparing);
  if (prepared) file_ = target_->name();
  co_return prepared;
}

Task<Result<void>> MirrorJob::prepare_mirror() {
  BH_CO_ASSIGN(target_, co_await open_target(&executor(), &request(), source_.get()));
  target_is_zero_ = !request().existing && request().sync == JobSync::kFull;  // else it shows what is below
  // Both stand on the same node: what is not copied reads the same through either.
  if (request().sync == JobSync::kTop) base_ = share_backing(source_.get(), target_.get());
  co_return Result<void>{};
}

// The base is part of the graph; it is opened for writing when work begins.
Task<Result<void>> MirrorJob::prepare_commit() {
  BH_CO_ASSIGN(Node* const base, find_below(source_.get(), request().base));
  BH_CO_TRY(judge_secrecy(request(), source_.get(), base, base));
  if (base->size() > source_->size())
    co_return fail("'{}' is larger than the disk that is to be committed into it; resize the disk first", base->name());
  target_ = base->shared_from_this();
  base_ = base;
  co_return Result<void>{};
}

Task<u64> MirrorJob::reach(u64 offset, u64 length) {
  co_return co_await empty_reach(source_.get(), base_, offset, length, kPiece);
}

Task<CopyJob::Copied> MirrorJob::copy_range(u64 offset, u64 length, std::span<std::byte> memory) {
  Copied out;
  // Where the target was written once, zeroes are no longer there by themselves.
  for (u64 at = offset; at < offset + length && out.status == IoStatus::kOk;) {
    const u64 run = written_.same_run(at, offset + length - at);
    const bool skip = target_is_zero_ && !written_.test(at);
    const RangeCopied one = co_await copy_between({source_.get(), base_, target_.get()}, at, run, skip, memory);
    if (one.bytes != 0) written_.set(at, run);
    out.bytes += one.bytes;
    out.status = one.status;
    out.at_target = one.at_target;
    at += run;
  }
  out.node = out.at_target ? target_.get() : source_.get();
  co_return out;
}

// The guest's change: below first, then at the target where that is current. Of the guest's memory a copy is taken, for
// what changes there meanwhile must not make the two differ.
Task<IoStatus> MirrorJob::change(Change* change) {
  RangeLock::Hold hold{ranges(), change->offset, change->length, RangeLock::Mode::kExclusive};
  co_await hold.acquire();
  AlignedMemory memory;
  IoBuffer copy;
  Change now = *change;
  if (now.kind == RequestKind::kWrite &&
      !(todo().test(now.offset) && todo().same_run(now.offset, now.length) == now.length)) {
    memory = AlignedMemory{now.length};
    if (!memory) co_return IoStatus::kIoError;
    copy_out(now.data, 0, memory.bytes());
    copy = {memory.data(), now.length};
    now.data = Buffers{&copy, 1};
  }
  const IoStatus status = co_await filter()->forward(&now);
  // What a discard leaves is the image's choice, and what a failure leaves nobody knows: it is copied again.
  if (status != IoStatus::kOk || now.kind == RequestKind::kDiscard)
    todo().set(now.offset, now.length);
  else
    co_await repeat(&now);
  if (!todo().empty()) wake();
  co_return status;
}

Task<void> MirrorJob::repeat(const Change* change) {
  for (u64 at = change->offset, end = at + change->length; at < end && !ended();) {
    const u64 run = todo().same_run(at, end - at);
    if (!todo().test(at)) {
      written_.set(at, run);
      const IoStatus status = co_await repeat_part(change, at, run);
      if (status != IoStatus::kOk) {
        todo().set(at, run);
        note({status, target_.get(), true, 0}, "writing");
      }
    }
    at += run;
  }
}

Task<IoStatus> MirrorJob::repeat_part(const Change* change, u64 offset, u64 length) {
  if (change->kind == RequestKind::kWriteZeroes)
    co_return co_await target_->write_zeroes(offset, length, WriteFlags::kMayUnmap);
  const BufferSlice part{change->data, offset - change->offset, length};
  co_return co_await target_->write(offset, part);
}

Task<Result<void>> MirrorJob::work() {
  if (commits()) {
    co_await disk().pause();
    Result<void> opened = co_await target_->reopen(DiskAccess::kReadWrite);
    committing_ = opened.has_value();
    if (opened && target_->size() < source_->size()) {
      const IoStatus grown = co_await target_->truncate(source_->size());
      if (grown != IoStatus::kOk) opened = std::unexpected(failed(*target_, "growing", grown));
    }
    disk().resume();
    if (!opened) {
      fail_with(opened.error().message);
      co_return co_await leave();
    }
  }
  co_await put_filter();
  todo().set(0, disk().size_bytes());
  const bool whole = co_await follow();
  if (!whole) co_return co_await leave();
  co_return co_await take_over();
}

// True: the disk is paused, nothing is left to be copied, and the target has it all on stable storage.
Task<bool> MirrorJob::follow() {
  while (true) {
    const bool copied = co_await copy_all();
    if (!copied) co_return false;
    if (todo().empty()) {
      set_ready();
      // Halted by hand or by an error that came from a guest's change: not before that is over.
      if (!complete_wanted() || halted()) {
        co_await wait_event();
        if (ended()) co_return false;
        continue;
      }
    } else {
      continue;
    }
    co_await disk().pause();
    if (todo().empty() && !ended()) {
      const IoStatus status = co_await target_->flush();
      if (status == IoStatus::kOk && !ended()) co_return true;
      note({status, target_.get(), true, 0}, "flushing");
      // Nobody knows what of it is safe: all of it once more.
      todo().set(0, disk().size_bytes());
    }
    disk().resume();
    if (ended()) co_return false;
  }
}

// The disk is paused.
Task<Result<void>> MirrorJob::take_over() {
  // What both stand on is the target's now, and is not closed with the source.
  if (base_ != nullptr) detach_backing(source_.get(), base_);
  disk().set_root(target_);
  forget_filter();
  set_pivoted();
  disk().resume();
  const IoStatus status = co_await close_graph(source_);
  if (status != IoStatus::kOk) log_warning("{}", failed(*source_, "closing", status).message);
  source_.reset();
  target_.reset();
  co_return Result<void>{};
}

Task<Result<void>> MirrorJob::leave() {
  co_await take_filter();
  if (commits()) {
    if (committing_) {
      co_await disk().pause();
      const Result<void> back = co_await target_->reopen(DiskAccess::kReadOnly);
      if (!back) log_warning("{}", back.error().message);
      disk().resume();
    }
  } else {
    if (base_ != nullptr) detach_backing(target_.get(), base_);
    co_await close_graph(target_);
  }
  source_.reset();
  target_.reset();
  co_return std::unexpected(why());
}

}  // namespace bulkhead::block
