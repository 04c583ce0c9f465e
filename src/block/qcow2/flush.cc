// What was changed in memory, to disk, in the order that keeps the image whole at any moment.
#include <algorithm>

#include "block/qcow2/qcow2_node.h"

namespace bulkhead::block::qcow2 {

namespace spec = bulkhead::spec::qcow2;

namespace {
constexpr std::size_t kTablesAtOnce = 64;

struct Copy {
  TablePin table;
  u64 begin = 0;
  std::vector<std::byte> bytes;
};
}  // namespace

// With the flush lock held. Tables are copied first, and counts written then: whatever a copy refers to is counted on
// disk before the copy is there, though others go on allocating meanwhile.
Task<IoStatus> Qcow2Node::write_l2_tables() {
  std::vector<TablePin> tables;
  for (Table* table : l2_.dirty()) tables.emplace_back(table);
  const bool lazy = (header_.incompatible & spec::kDirty) != 0;
  bool first = true;
  for (std::size_t done = 0; done < tables.size() || first; first = false) {
    std::vector<Copy> copies;
    for (; done < tables.size() && copies.size() < kTablesAtOnce; ++done) {
      Table& table = *tables[done];
      if (!table.dirty()) continue;
      Copy copy{std::move(tables[done]), align_down(table.dirty_begin, 512), {}};
      const u64 end = std::min(align_up(table.dirty_end, 512), l2_.table_bytes());
      copy.bytes.assign(table.bytes() + copy.begin, table.bytes() + end);
      table.dirty_begin = table.dirty_end = 0;
      table.writing = true;
      copies.push_back(std::move(copy));
    }
    IoStatus status = lazy ? IoStatus::kOk : co_await refcounts_.write_all();
    if (status == IoStatus::kOk && !lazy && refcounts_.take_unsynced()) status = co_await sync();
    for (Copy& copy : copies) {
      if (status == IoStatus::kOk) status = co_await file().write_bytes(copy.table->offset + copy.begin, copy.bytes);
      if (status != IoStatus::kOk) copy.table->mark(copy.begin, copy.bytes.size());
      copy.table->writing = false;
      copy.table->changed.wake_all();
    }
    if (status != IoStatus::kOk) co_return status;
  }
  co_return IoStatus::kOk;
}

Task<IoStatus> Qcow2Node::write_some_tables(TableCache&) {
  if (broken_) co_return IoStatus::kCorrupt;
  auto guard = co_await flushing_.lock();
  co_return co_await write_l2_tables();
}

// `finally`: what was written is on stable storage when it returns.
Task<IoStatus> Qcow2Node::write_tables(bool finally) {
  if (broken_) co_return IoStatus::kCorrupt;
  auto guard = co_await flushing_.lock();
  const std::vector<Run> released = std::exchange(released_, {});
  const u64 begin = std::exchange(l1_dirty_begin_, ~u64{0}), end = std::exchange(l1_dirty_end_, 0);
  std::vector<std::byte> l1;
  for (u64 i = begin; i < end; ++i) {
    l1.resize(l1.size() + 8);
    store_be(&l1[l1.size() - 8], l1_[i]);
  }
  IoStatus status = co_await write_l2_tables();
  if (status == IoStatus::kOk && !l1.empty()) {
    status = co_await sync();
    if (status == IoStatus::kOk) status = co_await file().write_bytes(header_.l1_offset + begin * 8, l1);
  }
  if (status == IoStatus::kOk && data_ != file_ && finally) status = co_await data().flush();
  if (status == IoStatus::kOk && (finally || !released.empty())) status = co_await sync();
  if (status != IoStatus::kOk) {
    released_.insert(released_.end(), released.begin(), released.end());
    l1_dirty_begin_ = std::min(l1_dirty_begin_, begin);
    l1_dirty_end_ = std::max(l1_dirty_end_, end);
    co_return status;
  }
  guard.unlock();
  co_return co_await release_clusters(&released);
}

Task<IoStatus> Qcow2Node::release_clusters(const std::vector<Run>* runs) {
  if (runs->empty()) co_return IoStatus::kOk;
  auto guard = co_await allocating_.lock();
  u64 hole = 0, hole_end = 0;  // bytes of the file that nobody uses, to be given back
  for (const Run& run : *runs) {
    const IoStatus status = co_await refcounts_.add(run.offset, run.clusters, -1);
    if (status == IoStatus::kCorrupt) {
      corrupt("clusters that are used have no refcount");
      co_return co_await mark_corrupt();
    }
    BH_IO_TRY(status);
    for (u64 i = 0; i < run.clusters; ++i) {
      const u64 offset = (run.offset + i) << layout_.cluster_bits;
      auto count = co_await refcounts_.get(run.offset + i);
      if (!count) co_return count.error();
      if (*count != 0) continue;
      if (packing_at_ != 0 && align_down(packing_at_, layout_.cluster()) == offset) packing_at_ = 0;
      const auto place = std::ranges::lower_bound(metadata_, offset);
      if (place != metadata_.end() && *place == offset) {
        metadata_.erase(place);
        l2_.forget(offset, layout_.cluster());
      }
      if (offset != hole_end) {
        if (hole_end != hole) co_await file().discard(hole, hole_end - hole);
        hole = offset;
      }
      hole_end = offset + layout_.cluster();
    }
  }
  const u64 file_end = file().size();
  if (hole < file_end && hole_end > hole) co_await file().discard(hole, std::min(hole_end, file_end) - hole);
  co_return IoStatus::kOk;
}

Task<IoStatus> Qcow2Node::do_flush() { return write_tables(true); }

Task<IoStatus> Qcow2Node::do_close() {
  if (read_only() || broken_ || !ready_) co_return IoStatus::kOk;
  const Result<void> tracked = co_await end_tracking();
  if (!tracked) note_error(tracked.error().message);
  BH_IO_TRY(co_await write_tables(true));
  BH_IO_TRY(co_await refcounts_.write_all());
  BH_IO_TRY(co_await sync());
  if ((header_.incompatible & spec::kDirty) == 0 || options_.as_it_is) co_return IoStatus::kOk;
  header_.incompatible &= ~u64{spec::kDirty};
  BH_IO_TRY(co_await write_header());
  co_return co_await sync();
}

}  // namespace bulkhead::block::qcow2
