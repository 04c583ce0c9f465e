#include "block/job/stream_job.h"

#include "base/log.h"
#include "block/job/chain.h"
#include "block/tools/copy.h"

namespace bulkhead::block {

Task<Result<void>> StreamJob::prepare() {
  root_ = disk().root();
  file_ = root_->name();
  image_ = tools::as_qcow2(root_.get());
  if (image_ == nullptr || image_->child(ChildRole::kBacking) == nullptr)
    co_return fail("'{}' stands on no other image: there is nothing to stream", root_->name());
  if (disk().read_only()) co_return fail("'{}' is read-only", root_->name());
  if (!request().base.empty()) {
    BH_CO_ASSIGN(base_, find_below(image_, request().base));
  }
  BH_CO_TRY(judge_secrecy(request(), image_->child(ChildRole::kBacking), base_, image_));
  co_return Result<void>{};
}

Task<u64> StreamJob::reach(u64 offset, u64 length) {
  co_return co_await empty_reach(image_, base_, offset, length, kPiece);
}

Task<CopyJob::Copied> StreamJob::copy_range(u64 offset, u64 length, std::span<std::byte> memory) {
  Copied out;
  out.node = image_;
  for (u64 at = offset; at < offset + length;) {
    const auto found = co_await tools::chain_status(image_, base_, at, offset + length - at);
    if (!found) {
      out.status = found.error();
      co_return out;
    }
    u64 count = found->status.length;
    // Where the image says nothing it will read as zeroes, if nothing is left below it.
    const bool ours = found->depth == 0 && found->present;
    if (!ours && found->data) {
      count = std::min<u64>(count, memory.size());
      out.status = co_await image_->read_bytes(at, memory.first(count));
      if (out.status != IoStatus::kOk) co_return out;
      if (base_ != nullptr || !all_zero(std::span<const std::byte>{memory.first(count)}))
        out.status = co_await image_->write_bytes(at, memory.first(count), WriteFlags::kUnchanged);
      out.bytes += count;
    } else if (!ours && found->zero && base_ != nullptr) {
      out.status = co_await image_->write_zeroes(at, count, WriteFlags::kMayUnmap | WriteFlags::kUnchanged);
    }
    if (out.status != IoStatus::kOk) {
      out.at_target = true;
      co_return out;
    }
    at += count;
  }
  co_return out;
}

Task<IoStatus> StreamJob::change(Change* change) {
  RangeLock::Hold hold{ranges(), change->offset, change->length, RangeLock::Mode::kShared};
  co_await hold.acquire();
  co_return co_await filter()->forward(change);
}

Task<Result<void>> StreamJob::work() {
  co_await put_filter();
  todo().set(0, disk().size_bytes());
  bool whole = co_await copy_all();
  co_await take_filter();
  Result<void> result;
  if (whole)
    result = co_await shorten();
  else
    result = std::unexpected(why());
  root_.reset();
  image_ = nullptr;
  co_return result;
}

Task<Result<void>> StreamJob::shorten() {
  set_completing();
  co_await disk().pause();
  BackingName name;
  if (base_ != nullptr) name = backing_name(image_, image_, base_);
  const Result<void> changed = co_await image_->change_backing(name.file, name.format);
  NodePtr old, kept;
  if (changed) {
    if (base_ != nullptr) {
      kept = base_->shared_from_this();
      detach_backing(image_, base_);
    }
    old = image_->detach(ChildRole::kBacking);
    if (kept != nullptr) image_->adopt_backing(kept);
  }
  disk().resume();
  if (old != nullptr) co_await close_graph(old);
  co_return changed;
}

}  // namespace bulkhead::block
