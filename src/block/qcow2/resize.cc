// Other sizes of the disk, preallocation, and emptying.
#include <algorithm>

#include "block/qcow2/qcow2_node.h"

namespace bulkhead::block::qcow2 {

namespace spec = bulkhead::spec::qcow2;

std::vector<std::byte> l1_bytes(const std::vector<u64>& l1);

// A longer L1 table somewhere else. What it refers to is on disk already, or still in the cache as it was.
Task<IoStatus> Qcow2Node::grow_l1(u64 entries) {
  if (entries * 8 > kMaxL1Bytes) co_return IoStatus::kOutOfRange;
  if (entries <= l1_.size()) co_return IoStatus::kOk;
  BH_IO_TRY(co_await write_tables(true));
  std::vector<u64> now = l1_;
  now.resize(entries);
  const std::vector<std::byte> bytes = l1_bytes(now);
  auto stored = co_await store_table(&bytes);
  if (!stored) co_return stored.error();
  const u64 old_offset = std::exchange(header_.l1_offset, *stored), old_bytes = l1_.size() * 8;
  header_.l1_size = static_cast<u32>(entries);
  l1_ = std::move(now);
  BH_IO_TRY(co_await write_header());
  BH_IO_TRY(co_await sync());
  co_return co_await free_now(old_offset, old_bytes);
}

Task<IoStatus> Qcow2Node::do_truncate(u64 bytes, Preallocation how) {
  std::map<std::string, std::vector<bool>> held;
  Result<void> bitmaps = co_await begin_resizing(&held);
  IoStatus status = IoStatus::kIoError;
  if (bitmaps) {
    status = co_await change_size(bytes, how);
    bitmaps = co_await end_resizing(&held);
  }
  if (bitmaps) co_return status;
  note_error(bitmaps.error().message);
  co_return status == IoStatus::kOk ? IoStatus::kIoError : status;
}

Task<IoStatus> Qcow2Node::change_size(u64 bytes, Preallocation how) {
  const u64 before = size();
  if (!is_aligned(bytes, kSectorSize)) co_return IoStatus::kOutOfRange;
  if (!snapshots_.empty() && (header_.version < 3 || bytes < before)) {
    note_error("it has snapshots; delete them before its size is changed so");
    co_return IoStatus::kUnsupported;
  }
  RangeLock::Hold hold{locks_, 0, ~u64{0} >> 1, RangeLock::Mode::kExclusive};
  co_await hold.acquire();
  BH_IO_TRY(co_await before_change());
  if (bytes > before) {
    const IoStatus grown = co_await grow_l1(header_.l1_entries_for(bytes));
    if (grown == IoStatus::kOutOfRange) note_error("the L1 table would be too long; larger clusters would help");
    BH_IO_TRY(grown);
    // What was behind the end of the disk is zeroes now, though a backing image may hold more there.
    if (backing() != nullptr && backing()->size() > before && !layout_.has_zero_flag) co_return IoStatus::kUnsupported;
  } else if (const u64 first = align_up(bytes, layout_.cluster()), last = align_up(before, layout_.cluster());
             first < last) {
    for (u64 at = first; at < last;) {
      const u64 until = std::min(last, align_down(at, layout_.slice_span()) + layout_.slice_span());
      BH_IO_TRY(co_await zero_in_slice(at, until - at, {true, true}));
      at = until;
    }
    BH_IO_TRY(co_await write_tables(false));
  }
  if (data_ != file_) BH_IO_TRY(co_await data().truncate(bytes, Preallocation::kOff));
  header_.size = bytes;
  BH_IO_TRY(co_await write_header());
  set_size(bytes);
  hold.release();
  if (bytes > before) BH_IO_TRY(co_await zero_tail(before, bytes));
  if (how != Preallocation::kOff && bytes > before) BH_IO_TRY(co_await preallocate(before, bytes, how));
  co_return co_await write_tables(true);
}

// A disk that grew reads as zeroes there: not as what its last cluster or its backing image hold behind the old end.
Task<IoStatus> Qcow2Node::zero_tail(u64 from, u64 to) {
  const u64 cluster_end = std::min(to, align_up(from, layout_.cluster()));
  if (cluster_end > from) BH_IO_TRY(co_await zero_part(from, cluster_end - from));
  if (backing() == nullptr || backing()->size() <= from) co_return IoStatus::kOk;
  const u64 end = align_up(std::min(to, backing()->size()), layout_.cluster());
  if (end <= cluster_end) co_return IoStatus::kOk;
  co_return co_await zero_clusters(cluster_end, end - cluster_end, {false, true});
}

// Gives each cluster its place. They read as zeroes: the places are new, or are written.
Task<IoStatus> Qcow2Node::preallocate(u64 from, u64 to, Preallocation how) {
  const u64 cluster = layout_.cluster();
  for (u64 at = align_down(from, cluster); at < to;) {
    const u64 until =
        std::min({align_up(to, cluster), align_down(at, layout_.slice_span()) + layout_.slice_span(), at + 64_MiB});
    RangeLock::Hold hold{locks_, at, until - at, RangeLock::Mode::kExclusive};
    co_await hold.acquire();
    auto writable = co_await writable_slice(at);
    if (!writable) co_return writable.error();
    const TablePin slice = std::move(*writable);
    while (at < until) {
      const L2Entry before = layout_.load(slice->bytes(), layout_.in_slice(at));
      if (layout_.has_host(before) || Layout::compressed(before)) {
        at += cluster;
        continue;
      }
      auto run = co_await allocate_data(at, 1);
      if (!run) co_return run.error();
      if (how == Preallocation::kFull || (!layout_.external && fresh_from_ == ~u64{0}))
        BH_IO_TRY(co_await data().write_zeroes(run->offset, cluster));
      replace(*slice, at, before, {run->offset | spec::kCopied, layout_.extended ? u64{0xffffffff} : 0});
      at += cluster;
    }
  }
  if (data_ == file_ && how != Preallocation::kOff) {
    const u64 end = align_up(std::max(file().size(), fresh_from_ == ~u64{0} ? 0 : fresh_from_), cluster);
    if (end > file().size())
      BH_IO_TRY(co_await file().truncate(end, how == Preallocation::kMetadata ? Preallocation::kOff : how));
  }
  co_return IoStatus::kOk;
}

Task<IoStatus> Qcow2Node::preallocate_all(Preallocation how) {
  BH_IO_TRY(co_await before_change());
  BH_IO_TRY(co_await preallocate(0, size(), how));
  co_return co_await write_tables(true);
}

Task<IoStatus> Qcow2Node::make_empty() {
  if (!snapshots_.empty() || layout_.external) co_return IoStatus::kUnsupported;
  const u64 end = align_up(size(), layout_.cluster());
  for (u64 at = 0; at < end;) {
    const u64 index = layout_.l1_index(at), span = header_.bytes_per_l1(), until = std::min(end, (index + 1) * span);
    if ((l1_[index] & spec::kOffsetMask) == 0) {
      at = until;
      continue;
    }
    RangeLock::Hold hold{locks_, at, until - at, RangeLock::Mode::kExclusive};
    co_await hold.acquire();
    BH_IO_TRY(co_await before_change());
    while (at < until) {
      auto writable = co_await writable_slice(at);
      if (!writable) co_return writable.error();
      const u64 slice_end = std::min(until, align_down(at, layout_.slice_span()) + layout_.slice_span());
      for (; at < slice_end; at += layout_.cluster())
        replace(**writable, at, layout_.load((*writable)->bytes(), layout_.in_slice(at)), {});
    }
  }
  co_return co_await write_tables(true);
}

}  // namespace bulkhead::block::qcow2
