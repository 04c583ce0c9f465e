// Writing: in place where a cluster is ours alone, else into new ones with what stood around the request.
#include <algorithm>

#include "block/qcow2/qcow2_node.h"

namespace bulkhead::block::qcow2 {

namespace spec = bulkhead::spec::qcow2;

namespace {
constexpr u64 kMostAtOnce = 4_MiB;  // of a write that allocates: others wait for it
}

Task<IoStatus> Qcow2Node::do_write(u64 offset, Buffers data, WriteFlags flags) {
  const bool unchanged = has(flags, WriteFlags::kUnchanged);
  const u64 length = total_bytes(data);
  if (broken_) co_return IoStatus::kCorrupt;
  {
    RangeLock::Hold hold{locks_, offset, length, RangeLock::Mode::kShared};
    co_await hold.acquire();
    Extent extent;
    // Nearly always one run that is there already.
    if (map_now(offset, length, &extent) && extent.length == length && extent.kind == ExtentKind::kData &&
        extent.copied && !overlaps_metadata(extent.host, length)) {
      if (!unchanged) track(offset, length);
      const IoStatus status = co_await write_data(offset, extent.host, data);
      co_return status;
    }
  }
  for (u64 done = 0; done < length;) {
    auto count = co_await write_some(offset + done, data, done, length - done, unchanged);
    if (!count) co_return count.error();
    done += *count;
  }
  co_return IoStatus::kOk;
}

// Writes a first part of the request, and answers how much.
Task<IoResult<u64>> Qcow2Node::write_some(u64 offset, Buffers data, u64 skip, u64 length, bool unchanged) {
  {
    RangeLock::Hold hold{locks_, offset, length, RangeLock::Mode::kShared};
    co_await hold.acquire();
    auto extent = co_await map(offset, length);
    if (!extent) co_return std::unexpected(extent.error());
    if (!judge(*extent, offset)) co_return std::unexpected(IoStatus::kCorrupt);
    if (extent->kind == ExtentKind::kData && extent->copied) {
      const IoStatus allowed = may_write(extent->host, extent->length);
      if (allowed != IoStatus::kOk) {
        co_await mark_corrupt();
        co_return std::unexpected(allowed);
      }
      if (!unchanged) track(offset, extent->length);
      const BufferSlice piece{data, skip, extent->length};
      BH_IO_TRY(co_await write_data(offset, extent->host, piece));
      co_return extent->length;
    }
  }
  const u64 cluster = layout_.cluster(), begin = align_down(offset, cluster);
  const u64 slice_end = align_down(offset, layout_.slice_span()) + layout_.slice_span();
  const u64 most = std::max(kMostAtOnce, cluster);
  const u64 end = std::min({align_up(offset + length, cluster), slice_end, begin + most});
  RangeLock::Hold hold{locks_, begin, end - begin, RangeLock::Mode::kExclusive};
  co_await hold.acquire();
  if (!unchanged) track(offset, std::min(length, end - offset));
  co_return co_await write_new(offset, data, skip, std::min(length, end - offset));
}

IoStatus Qcow2Node::may_write(u64 host, u64 length) {
  if (broken_) return IoStatus::kCorrupt;
  if (!overlaps_metadata(host, length)) return IoStatus::kOk;
  return corrupt(fmt::format("data is said to be at byte {:#x}, where tables are", host));
}

// Nothing is written any more, and the next opener sees why.
Task<IoStatus> Qcow2Node::mark_corrupt() {
  if (std::exchange(broken_, true) || header_.version < 3) co_return IoStatus::kCorrupt;
  header_.incompatible |= spec::kCorrupt;
  co_await write_header();
  co_return IoStatus::kCorrupt;
}

// A new cluster takes all that stood in one that is compressed, or that a snapshot uses too.
bool Qcow2Node::whole_copy(const L2Entry& before) const {
  return Layout::compressed(before) || (layout_.has_host(before) && !Layout::copied(before));
}

// What stands around a write in a cluster reads as zeroes.
bool Qcow2Node::edge_is_zero(const L2Entry& before, u64 begin) const {
  if (whole_copy(before) || layout_.has_host(before)) return false;
  if (!layout_.extended && (before.entry & spec::kZero) != 0 && layout_.has_zero_flag) return true;
  return backing() == nullptr || begin >= backing()->size();
}

L2Entry Qcow2Node::written(const L2Entry& before, u64 host, u64 cluster, u64 begin, u64 end) const {
  L2Entry now{host | spec::kCopied, 0};
  if (!layout_.extended) return now;
  const u64 sub = layout_.subcluster();
  const auto first = static_cast<unsigned>((std::max(begin, cluster) - cluster) / sub);
  const auto last = static_cast<unsigned>((std::min(end, cluster + layout_.cluster()) - 1 - cluster) / sub);
  const u64 mask = bits(~u64{0}, last - first, 0) << first;
  now.bitmap = ((Layout::compressed(before) ? 0 : before.bitmap) & ~(mask << 32)) | mask;
  return now;
}

// Under the range's exclusive hold: [offset, offset + length) is within one slice.
Task<IoResult<u64>> Qcow2Node::write_new(u64 offset, Buffers data, u64 skip, u64 length) {
  BH_IO_TRY(co_await before_change());
  auto writable = co_await writable_slice(offset);
  if (!writable) co_return std::unexpected(writable.error());
  const TablePin slice = std::move(*writable);
  const u64 cluster = layout_.cluster(), begin = align_down(offset, cluster), sub = layout_.subcluster();
  const auto entry_at = [&](u64 at) { return layout_.load(slice->bytes(), layout_.in_slice(at)); };
  const L2Entry first = entry_at(begin);
  const auto ours = [&](const L2Entry& entry) { return layout_.has_host(entry) && Layout::copied(entry); };
  for (u64 at = begin; at < offset + length; at += cluster)
    if (layout_.kind(entry_at(at), 0) == ExtentKind::kBad)
      co_return std::unexpected(corrupt(fmt::format("the entry for byte {:#x} of the disk contradicts itself", at)));

  const bool in_place = ours(first);
  u64 clusters = 1;
  while (!in_place && begin + clusters * cluster < offset + length && !ours(entry_at(begin + clusters * cluster)))
    ++clusters;
  u64 host = layout_.host(first);
  bool fresh = false;
  if (in_place) {
    const IoStatus allowed = may_write(host, cluster);
    if (allowed != IoStatus::kOk) {
      co_await mark_corrupt();
      co_return std::unexpected(allowed);
    }
  } else {
    const u64 fresh_from = fresh_from_;
    auto run = co_await allocate_data(begin, clusters);
    if (!run) co_return std::unexpected(run.error());
    clusters = run->clusters;
    host = run->offset;
    fresh = !layout_.external && !header_.encrypted() && host >= fresh_from;
  }
  const u64 end = std::min(offset + length, begin + clusters * cluster), last = align_down(end - 1, cluster);
  const L2Entry final_entry = entry_at(last);
  const u64 edge_begin = whole_copy(first) ? begin : align_down(offset, sub);
  const u64 edge_end = whole_copy(final_entry) ? last + cluster : align_up(end, sub);
  // A cluster that was never used holds zeroes already.
  const u64 from = fresh && edge_is_zero(first, edge_begin) ? offset : edge_begin;
  const u64 until = fresh && edge_is_zero(final_entry, last) ? end : edge_end;
  const IoStatus status =
      co_await write_with_edges(offset, end - offset, from, until, host + (from - begin), data, skip);
  if (status != IoStatus::kOk) {
    if (!in_place && !layout_.external) release(host >> layout_.cluster_bits, clusters);
    co_return std::unexpected(status);
  }
  for (u64 i = 0; i < clusters; ++i) {
    const u64 at = begin + i * cluster;
    const L2Entry before = entry_at(at);
    replace(*slice, at, before, written(before, host + i * cluster, at, edge_begin, edge_end));
  }
  co_return end - offset;
}

// Writes the request with what is around it, [begin, offset) and [offset + length, end) of the disk, to `host`.
Task<IoStatus> Qcow2Node::write_with_edges(u64 offset, u64 length, u64 begin, u64 end, u64 host, Buffers data,
                                           u64 skip) {
  const u64 head = offset - begin, tail = end - (offset + length);
  const BufferSlice middle{data, skip, length};
  if (head + tail == 0) co_return co_await write_data(begin, host, middle);
  AlignedMemory edges{head + tail};
  if (!edges) co_return IoStatus::kIoError;
  std::memset(edges.data(), 0, head + tail);
  const auto within = [&](u64 at, u64 bytes) { return at >= size() ? 0 : std::min(bytes, size() - at); };
  if (const u64 count = within(begin, head); count != 0) {
    const IoBuffer piece{edges.data(), count};
    BH_IO_TRY(co_await read_parts(begin, Buffers{&piece, 1}, count));
  }
  if (const u64 count = within(offset + length, tail); count != 0) {
    const IoBuffer piece{edges.data() + head, count};
    BH_IO_TRY(co_await read_parts(offset + length, Buffers{&piece, 1}, count));
  }
  std::vector<IoBuffer> all;
  if (head != 0) all.push_back({edges.data(), head});
  all.insert(all.end(), middle.get().begin(), middle.get().end());
  if (tail != 0) all.push_back({edges.data() + head, tail});
  co_return co_await write_data(begin, host, all);
}

Task<IoStatus> Qcow2Node::before_change() {
  if (broken_) co_return IoStatus::kCorrupt;
  if ((header_.compatible & spec::kLazyRefcounts) == 0 || (header_.incompatible & spec::kDirty) != 0)
    co_return IoStatus::kOk;
  auto guard = co_await allocating_.lock();
  if ((header_.incompatible & spec::kDirty) != 0) co_return IoStatus::kOk;
  header_.incompatible |= spec::kDirty;
  IoStatus status = co_await write_header();
  if (status == IoStatus::kOk) status = co_await sync();
  if (status != IoStatus::kOk) header_.incompatible &= ~u64{spec::kDirty};
  co_return status;
}

// With the allocation lock held.
Task<IoResult<Run>> Qcow2Node::allocate(u64 clusters, bool exact) {
  auto run = co_await refcounts_.allocate(clusters, exact);
  if (!run) {
    if (run.error() == IoStatus::kCorrupt) {
      corrupt("its refcounts say that clusters of tables are free");
      co_await mark_corrupt();
    }
    co_return run;
  }
  if (fresh_from_ != ~u64{0})
    fresh_from_ = std::max(fresh_from_, run->offset + (run->clusters << layout_.cluster_bits));
  co_return run;
}

// External data has no counts: every byte of the disk has its place there.
Task<IoResult<Run>> Qcow2Node::allocate_data(u64 offset, u64 clusters) {
  if (layout_.external) co_return Run{offset, clusters};
  auto guard = co_await allocating_.lock();
  co_return co_await allocate(clusters, false);
}

// The slice of `offset`, in an L2 table that is ours alone.
Task<IoResult<TablePin>> Qcow2Node::writable_slice(u64 offset) {
  const u64 index = layout_.l1_index(offset);
  if ((l1_[index] & spec::kCopied) == 0) {
    auto guard = co_await allocating_.lock();
    if ((l1_[index] & spec::kCopied) == 0) BH_IO_TRY(co_await new_l2_table(index));
  }
  const u64 table = l1_[index] & spec::kOffsetMask;
  if (!is_aligned(table, layout_.cluster()) || table == 0)
    co_return std::unexpected(corrupt(fmt::format("an L2 table is said to be at byte {:#x}", table)));
  co_return co_await l2_.load(table + layout_.slice_at(offset));
}

// A table of zeroes, or a copy of one that is shared with a snapshot. It is on disk before anything points to it.
Task<IoStatus> Qcow2Node::new_l2_table(u64 index) {
  const u64 before = l1_[index] & spec::kOffsetMask;
  if (!is_aligned(before, layout_.cluster())) co_return corrupt("an L2 table is not where tables can be");
  AlignedMemory content{layout_.cluster()};
  if (!content) co_return IoStatus::kIoError;
  std::memset(content.data(), 0, content.size());
  if (before != 0) {
    BH_IO_TRY(co_await file().read_bytes(before, content.bytes()));
    // Its clusters are shared from now on, whatever the table says.
    for (u64 i = 0; i < u64{1} << layout_.l2_bits; ++i) {
      L2Entry entry = layout_.load(content.data(), i);
      entry.entry &= ~(Layout::compressed(entry) || layout_.external ? 0 : spec::kCopied);
      layout_.store(content.data(), i, entry);
    }
  }
  auto run = co_await allocate(1, true);
  if (!run) co_return run.error();
  const IoStatus status = co_await file().write_bytes(run->offset, content.bytes());
  if (status != IoStatus::kOk) {
    release(run->offset >> layout_.cluster_bits, 1);
    co_return status;
  }
  l2_.forget(run->offset, layout_.cluster());
  note_metadata(run->offset);
  l1_[index] = run->offset | spec::kCopied;
  l1_dirty_begin_ = std::min(l1_dirty_begin_, index);
  l1_dirty_end_ = std::max(l1_dirty_end_, index + 1);
  if (before != 0) release(before >> layout_.cluster_bits, 1);
  co_return IoStatus::kOk;
}

// The entry for `offset` becomes `now`; what it referred to before is let go, once that is on disk.
void Qcow2Node::replace(Table& slice, u64 offset, const L2Entry& before, const L2Entry& now) {
  if (before == now) return;
  const u64 index = layout_.in_slice(offset);
  layout_.store(slice.bytes(), index, now);
  slice.mark(index << layout_.entry_bits, u64{1} << layout_.entry_bits);
  if (layout_.has_host(before) && layout_.has_host(now) && layout_.host(before) == layout_.host(now)) return;
  release(before);
}

void Qcow2Node::release(const L2Entry& entry) {
  if (Layout::compressed(entry)) {
    const CompressedPlace place = layout_.place(entry.entry);
    const u64 first = place.offset >> layout_.cluster_bits;
    release(first, ((place.offset + place.bytes - 1) >> layout_.cluster_bits) - first + 1);
    cached_descriptor_ = 0;
  } else if (layout_.has_host(entry) && !layout_.external) {
    release(layout_.host(entry) >> layout_.cluster_bits, 1);
  }
}

bool Qcow2Node::overlaps_metadata(u64 offset, u64 length) const {
  if (layout_.external && ready_) return false;  // asked of data, which is elsewhere
  const auto next = std::ranges::lower_bound(metadata_, align_down(offset, layout_.cluster()));
  return next != metadata_.end() && *next < offset + length;
}

void Qcow2Node::note_metadata(u64 offset, u64 clusters) {
  for (u64 i = 0; i < clusters; ++i) {
    const u64 at = offset + (i << layout_.cluster_bits);
    const auto place = std::ranges::lower_bound(metadata_, at);
    if (place == metadata_.end() || *place != at) metadata_.insert(place, at);
  }
}

void Qcow2Node::note_all_metadata() {
  const u64 cluster = layout_.cluster();
  metadata_.assign(1, 0);
  const auto range = [&](u64 offset, u64 bytes) {
    for (u64 at = align_down(offset, cluster); at < offset + bytes; at += cluster) metadata_.push_back(at);
  };
  range(header_.l1_offset, l1_.size() * 8);
  range(header_.refcount_table_offset, header_.refcount_table_clusters * cluster);
  for (const u64 block : refcounts_.table())
    if (block != 0) metadata_.push_back(align_down(block, cluster));
  for (const u64 entry : l1_)
    if ((entry & spec::kOffsetMask) != 0) metadata_.push_back(align_down(entry & spec::kOffsetMask, cluster));
  for (const Snapshot& snapshot : snapshots_) range(snapshot.l1_offset, u64{snapshot.l1_size} * 8);
  if (header_.encryption) range(header_.encryption->offset, header_.encryption->length);
  if (header_.bitmaps) range(header_.bitmaps->directory_offset, header_.bitmaps->directory_size);
  std::ranges::sort(metadata_);
  const auto [first, last] = std::ranges::unique(metadata_);
  metadata_.erase(first, last);
}

Task<IoStatus> Qcow2Node::write_compressed(u64 offset, std::span<const std::byte> packed) {
  const u64 cluster = layout_.cluster();
  if (read_only()) co_return IoStatus::kReadOnly;
  if (layout_.external || header_.encrypted() || packed.size() >= cluster || packed.empty() ||
      !is_aligned(offset, cluster) || offset >= size())
    co_return IoStatus::kUnsupported;
  RangeLock::Hold hold{locks_, offset, cluster, RangeLock::Mode::kExclusive};
  co_await hold.acquire();
  BH_IO_TRY(co_await before_change());
  auto writable = co_await writable_slice(offset);
  if (!writable) co_return writable.error();
  const TablePin slice = std::move(*writable);
  const L2Entry before = layout_.load(slice->bytes(), layout_.in_slice(offset));
  u64 at = 0;
  {
    auto guard = co_await allocating_.lock();
    // Packed clusters stand one behind the other; one that begins in a cluster that others use counts there, too.
    const u64 room = packing_at_ == 0 ? 0 : align_up(packing_at_, cluster) - packing_at_;
    at = packing_at_;
    bool started = room >= packed.size();
    if (started) {
      const IoStatus status = co_await refcounts_.add(at >> layout_.cluster_bits, 1, +1);
      started = status == IoStatus::kOk;  // not so where the count is at its limit
    }
    if (!started) {
      auto run = co_await allocate(1, true);
      if (!run) co_return run.error();
      at = run->offset;
    }
    packing_at_ = at + packed.size();
    if (is_aligned(packing_at_, cluster)) packing_at_ = 0;
  }
  const IoStatus status = co_await file().write_bytes(at, packed);
  if (status != IoStatus::kOk) {
    release(at >> layout_.cluster_bits, 1);
    co_return status;
  }
  track(offset, std::min(cluster, size() - offset));
  replace(*slice, offset, before, {layout_.descriptor(at, packed.size()), 0});
  co_return IoStatus::kOk;
}

}  // namespace bulkhead::block::qcow2
