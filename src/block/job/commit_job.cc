#include "block/job/commit_job.h"

#include "base/log.h"
#include "block/job/chain.h"
#include "block/tools/session.h"

namespace bulkhead::block {

using tools::failed;

Task<Result<void>> CommitJob::prepare() {
  root_ = disk().root();
  BH_CO_ASSIGN(top_, find_below(root_.get(), request().top));
  BH_CO_ASSIGN(base_, find_below(top_, request().base));
  BH_CO_TRY(judge_secrecy(request(), top_, base_, base_));
  co_return Result<void>{};
}

Task<u64> CommitJob::reach(u64 offset, u64 length) {
  if (offset >= top_->size()) co_return length;
  co_return co_await empty_reach(top_, base_, offset, std::min(length, top_->size() - offset),
                                 std::min(length, kPiece));
}

Task<CopyJob::Copied> CommitJob::copy_range(u64 offset, u64 length, std::span<std::byte> memory) {
  if (offset >= top_->size()) co_return Copied{};
  const u64 count = std::min(length, top_->size() - offset);
  const RangeCopied one = co_await copy_between({top_, base_, base_}, offset, count, false, memory);
  co_return Copied{one.status, one.at_target ? base_ : top_, one.at_target, one.bytes};
}

// The disk is paused.
Task<Result<void>> CommitJob::open_base() {
  BH_CO_TRY(co_await base_->reopen(DiskAccess::kReadWrite));
  if (base_->size() >= top_->size()) co_return Result<void>{};
  const IoStatus status = co_await base_->truncate(top_->size());
  if (status != IoStatus::kOk) co_return std::unexpected(failed(*base_, "growing", status));
  co_return Result<void>{};
}

Task<Result<void>> CommitJob::work() {
  co_await disk().pause();
  Result<void> result = co_await open_base();
  disk().resume();
  if (result) {
    todo().set(0, disk().size_bytes());
    const bool whole = co_await copy_all();
    if (!whole) result = std::unexpected(why());
  }
  set_completing();
  co_await disk().pause();
  if (result) {
    const IoStatus status = co_await base_->flush();
    if (status != IoStatus::kOk) result = std::unexpected(failed(*base_, "flushing", status));
  }
  if (result) result = co_await shorten();
  if (!base_->read_only()) {
    const Result<void> back = co_await base_->reopen(DiskAccess::kReadOnly);
    if (!back) log_warning("{}", back.error().message);
  }
  disk().resume();
  root_.reset();
  co_return result;
}

// The disk is paused. Whoever stands on the top one stands on the base then.
Task<Result<void>> CommitJob::shorten() {
  // A base that is larger would show more than the images above it did.
  Node* const overlay = overlay_of(root_.get(), top_);
  auto* const image = tools::as_qcow2(overlay);
  const bool was_read_only = image->read_only();
  if (was_read_only) BH_CO_TRY(co_await image->reopen(DiskAccess::kReadWrite));
  const BackingName name = backing_name(root_.get(), overlay, base_);
  Result<void> changed = co_await image->change_backing(name.file, name.format);
  if (changed) {
    NodePtr kept = base_->shared_from_this();
    detach_backing(root_.get(), base_);
    const NodePtr old = image->detach(ChildRole::kBacking);
    image->adopt_backing(kept);
    co_await close_graph(old);
  }
  if (was_read_only) {
    const Result<void> back = co_await image->reopen(DiskAccess::kReadOnly);
    if (!back) log_warning("{}", back.error().message);
  }
  co_return changed;
}

}  // namespace bulkhead::block
