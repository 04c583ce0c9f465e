#include "block/job/copy_job.h"

#include "block/tools/copy.h"

namespace bulkhead::block {

namespace {
constexpr u64 kMostEmpty = 256_MiB;  // of the disk in one piece where nothing is to be moved
constexpr Nanoseconds kAfterErrors = 100'000'000;
constexpr u64 kSparse = 64_KiB;
}  // namespace

CopyJob::CopyJob(Disk& disk, JobRequest request, unsigned chunk_bits)
    : Job{disk, std::move(request)},
      size_{disk.size_bytes()},
      todo_{size_, chunk_bits},
      ranges_{disk.executor()},
      choosing_{disk.executor()},
      idle_{disk.executor()} {}

Task<u64> CopyJob::reach(u64, u64 length) { co_return std::min(length, kPiece); }

void CopyJob::note(const Copied& piece, std::string_view what) {
  const std::string why = piece.node == nullptr ? "" : piece.node->last_error();
  const std::string name = piece.node == nullptr ? disk().root()->name() : piece.node->name();
  error(fmt::format("{} '{}' failed: {}", what, name, why.empty() ? std::string{text_of(piece.status)} : why),
        piece.at_target);
}

Task<CopyJob::Copied> CopyJob::copy_marked(u64 offset, u64 length, std::span<std::byte> memory) {
  Copied all;
  for (u64 at = offset; at < offset + length;) {
    const u64 run = todo_.same_run(at, offset + length - at);
    if (todo_.test(at)) {
      const Copied one = co_await copy_range(at, run, memory);
      if (one.status != IoStatus::kOk) co_return one;
      all.bytes += one.bytes;
      todo_.clear(at, run);
    }
    at += run;
  }
  co_return all;
}

Task<void> CopyJob::worker() {
  AlignedMemory memory{kPiece};
  if (!memory) fail_with("no memory to copy with");
  while (true) {
    const bool go = co_await may_go();
    if (!go) break;
    ByteRange piece;
    {
      auto guard = co_await choosing_.lock();
      piece = todo_.next(cursor_, kMostEmpty);
      if (piece.length == 0) break;
      if (piece.length > kPiece) {
        const u64 most = piece.length, reached = co_await reach(piece.offset, most);
        piece.length = reached == most ? most : align_down(reached, todo_.chunk());
      }
      cursor_ = piece.offset + piece.length;
    }
    Copied done;
    {
      RangeLock::Hold hold{ranges_, piece.offset, piece.length, RangeLock::Mode::kExclusive};
      co_await hold.acquire();
      done = co_await copy_marked(piece.offset, piece.length, memory.bytes());
    }
    took(done.bytes);
    if (done.status == IoStatus::kOk) continue;
    stumbled_ = true;
    note(done, done.at_target ? "writing" : "reading");
  }
  if (--workers_ == 0) idle_.wake_all();
}

Task<bool> CopyJob::copy_all() {
  while (!todo_.empty()) {
    const bool go = co_await may_go();
    if (!go) break;
    cursor_ = 0;
    stumbled_ = false;
    workers_ = kWorkers;
    for (unsigned i = 0; i < kWorkers; ++i) executor().spawn(worker());
    while (workers_ != 0) co_await idle_.wait();
    if (stumbled_ && !halted() && !ended()) co_await executor().sleep_for(kAfterErrors);
  }
  co_return !ended();
}

Task<void> CopyJob::put_filter() {
  co_await disk().pause();
  below_ = disk().root();
  filter_ = std::make_shared<JobFilter>(below_, static_cast<ChangeHook&>(*this));
  disk().set_root(filter_);
  disk().resume();
}

Task<void> CopyJob::take_filter() {
  if (filter_ == nullptr) co_return;
  co_await disk().pause();
  disk().set_root(below_);
  forget_filter();
  disk().resume();
}

namespace {

// Data, but for its runs of zeroes.
Task<IoStatus> write_data(Node* to, u64 offset, std::span<std::byte> data, bool may_skip_zeroes) {
  const auto zero_at = [&](u64 at) {
    return all_zero(std::span<const std::byte>{data}.subspan(at, std::min(kSparse, data.size() - at)));
  };
  for (u64 at = 0; at < data.size();) {
    const bool zero = zero_at(at);
    u64 end = std::min<u64>(at + kSparse, data.size());
    while (end < data.size() && zero_at(end) == zero) end = std::min<u64>(end + kSparse, data.size());
    if (!zero)
      BH_IO_TRY(co_await to->write_bytes(offset + at, data.subspan(at, end - at)));
    else if (!may_skip_zeroes)
      BH_IO_TRY(co_await to->write_zeroes(offset + at, end - at, WriteFlags::kMayUnmap));
    at = end;
  }
  co_return IoStatus::kOk;
}

}  // namespace

Task<RangeCopied> copy_between(RangeCopy way, u64 offset, u64 length, bool may_skip_zeroes,
                               std::span<std::byte> memory) {
  RangeCopied out;
  for (u64 at = offset; at < offset + length;) {
    const auto found = co_await tools::chain_status(way.from, way.base, at, offset + length - at);
    if (!found) co_return RangeCopied{found.error(), false, out.bytes};
    u64 count = found->status.length;
    if (found->data) {
      count = std::min<u64>(count, memory.size());
      const auto data = memory.first(count);
      out.status = co_await way.from->read_bytes(at, data);
      if (out.status != IoStatus::kOk) co_return out;
      out.status = co_await write_data(way.to, at, data, may_skip_zeroes);
      out.bytes += count;
    } else if ((found->present || found->zero) && !may_skip_zeroes) {
      out.status = co_await way.to->write_zeroes(at, count, WriteFlags::kMayUnmap);
    }
    if (out.status != IoStatus::kOk) {
      out.at_target = true;
      co_return out;
    }
    at += count;
  }
  co_return out;
}

Task<u64> empty_reach(Node* from, const Node* base, u64 offset, u64 length, u64 least) {
  const auto found = co_await tools::chain_status(from, base, offset, length);
  if (!found || found->data) co_return std::min(length, least);
  co_return std::clamp(found->status.length, std::min(length, least), length);
}

}  // namespace bulkhead::block
