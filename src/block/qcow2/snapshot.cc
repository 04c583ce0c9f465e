// Internal snapshots [qcow2 "Snapshots"]: each an L1 table of its own over shared, counted clusters.
#include <algorithm>

#include "block/qcow2/qcow2_node.h"

namespace bulkhead::block::qcow2 {

namespace spec = bulkhead::spec::qcow2;

namespace {

constexpr u64 kEntryBytes = 40, kExtraBytes = 24, kMaxExtra = 1024, kMaxTableBytes = 64_MiB;

void put(std::vector<std::byte>& out, const Snapshot& snapshot) {
  const std::size_t begin = out.size();
  const u64 extra = kExtraBytes + snapshot.extra.size();
  out.resize(begin + kEntryBytes + extra);
  std::byte* const at = &out[begin];
  store_be<u64>(at, snapshot.l1_offset);
  store_be<u32>(at + 8, snapshot.l1_size);
  store_be<u16>(at + 12, static_cast<u16>(snapshot.id.size()));
  store_be<u16>(at + 14, static_cast<u16>(snapshot.name.size()));
  store_be<u32>(at + 16, snapshot.seconds);
  store_be<u32>(at + 20, snapshot.nanoseconds);
  store_be<u64>(at + 24, snapshot.vm_clock);
  store_be<u32>(at + 32, static_cast<u32>(std::min<u64>(snapshot.vm_state_size, ~u32{0})));
  store_be<u32>(at + 36, static_cast<u32>(extra));
  store_be<u64>(at + 40, snapshot.vm_state_size);
  store_be<u64>(at + 48, snapshot.disk_size);
  store_be<u64>(at + 56, snapshot.icount);
  std::ranges::copy(snapshot.extra, at + 64);
  for (const std::string* text : {&snapshot.id, &snapshot.name}) {
    const auto bytes = std::as_bytes(std::span{*text});
    out.insert(out.end(), bytes.begin(), bytes.end());
  }
  out.resize(align_up(out.size(), 8));
}

std::vector<std::byte> serialize(const std::vector<Snapshot>& snapshots) {
  std::vector<std::byte> out;
  for (const Snapshot& snapshot : snapshots) put(out, snapshot);
  return out;
}

}  // namespace

// Reads `bytes` more of the table into `out`, which begins at `offset`.
static Task<Result<void>> read_more(Node* file, u64 offset, std::vector<std::byte>* out, u64 bytes) {
  const u64 before = out->size();
  if (before + bytes > kMaxTableBytes) co_return fail("its snapshot table is too long");
  out->resize(before + bytes);
  const IoStatus status = co_await file->read_bytes(offset + before, std::span{*out}.subspan(before));
  if (status != IoStatus::kOk) co_return fail("its snapshot table: {}", text_of(status));
  co_return Result<void>{};
}

Task<Result<void>> Qcow2Node::load_snapshots() {
  u64 offset = header_.snapshots_offset, total = 0;
  for (u32 i = 0; i < header_.snapshot_count; ++i) {
    std::vector<std::byte> bytes;
    BH_CO_TRY(co_await read_more(file_, offset, &bytes, kEntryBytes));
    Snapshot one;
    one.l1_offset = load_be<u64>(&bytes[0]);
    one.l1_size = load_be<u32>(&bytes[8]);
    const u64 id_length = load_be<u16>(&bytes[12]), name_length = load_be<u16>(&bytes[14]),
              extra = load_be<u32>(&bytes[36]);
    one.seconds = load_be<u32>(&bytes[16]);
    one.nanoseconds = load_be<u32>(&bytes[20]);
    one.vm_clock = load_be<u64>(&bytes[24]);
    one.vm_state_size = load_be<u32>(&bytes[32]);
    one.disk_size = size();
    if (extra > kMaxExtra) co_return fail("its snapshot {} has {} bytes of extra data, too many", i, extra);
    if (u64{one.l1_size} * 8 > kMaxL1Bytes || !is_aligned(one.l1_offset, layout_.cluster()))
      co_return fail("its snapshot {} has an L1 table of {} entries at byte {:#x}, which cannot be", i, one.l1_size,
                     one.l1_offset);
    BH_CO_TRY(co_await read_more(file_, offset, &bytes, extra + id_length + name_length));
    const std::byte* const more = bytes.data() + kEntryBytes;
    if (extra >= 8) one.vm_state_size = load_be<u64>(more);
    if (extra >= 16) one.disk_size = load_be<u64>(more + 8);
    if (extra >= 24) one.icount = load_be<u64>(more + 16);
    if (extra > kExtraBytes) one.extra.assign(more + kExtraBytes, more + extra);
    one.id.assign(reinterpret_cast<const char*>(more + extra), id_length);
    one.name.assign(reinterpret_cast<const char*>(more + extra + id_length), name_length);
    if (one.disk_size > (u64{1} << 62) || header_.l1_entries_for(one.disk_size) > one.l1_size)
      co_return fail("its snapshot {} is of a disk of {} bytes, for which its L1 table is too short", i, one.disk_size);
    const u64 used = align_up(bytes.size(), 8);
    offset += used;
    total += used;
    if (total > kMaxTableBytes) co_return fail("its snapshot table is too long");
    snapshots_.push_back(std::move(one));
  }
  snapshots_bytes_ = total;
  co_return Result<void>{};
}

const Snapshot* Qcow2Node::find_snapshot(const std::string& name) const {
  auto found = std::ranges::find(snapshots_, name, &Snapshot::id);
  if (found == snapshots_.end()) found = std::ranges::find(snapshots_, name, &Snapshot::name);
  return found == snapshots_.end() ? nullptr : &*found;
}

Task<IoResult<std::vector<u64>>> Qcow2Node::load_l1(u64 offset, u32 entries) {
  std::vector<u64> out(entries);
  if (entries == 0) co_return out;
  BH_IO_TRY(co_await file().read_bytes(offset, std::as_writable_bytes(std::span{out})));
  for (u64& entry : out) entry = swap_bytes(entry);
  co_return out;
}

// A table in clusters of its own, on stable storage when this returns.
Task<IoResult<u64>> Qcow2Node::store_table(const std::vector<std::byte>* table) {
  const u64 clusters = align_up(std::max<u64>(table->size(), 1), layout_.cluster()) >> layout_.cluster_bits;
  auto guard = co_await allocating_.lock();
  auto run = co_await allocate(clusters, true);
  if (!run) co_return std::unexpected(run.error());
  BH_IO_TRY(co_await file().write_bytes(run->offset, *table));
  BH_IO_TRY(co_await refcounts_.write_all());
  BH_IO_TRY(co_await sync());
  l2_.forget(run->offset, clusters << layout_.cluster_bits);
  note_metadata(run->offset, clusters);
  co_return run->offset;
}

Task<IoStatus> Qcow2Node::free_now(u64 offset, u64 bytes) {
  if (bytes == 0) co_return IoStatus::kOk;
  const u64 first = offset >> layout_.cluster_bits,
            clusters = align_up(bytes, layout_.cluster()) >> layout_.cluster_bits;
  std::vector<Run> runs;
  runs.push_back({first, clusters});
  co_return co_await release_clusters(&runs);
}

std::vector<std::byte> l1_bytes(const std::vector<u64>& l1) {
  std::vector<std::byte> out(l1.size() * 8);
  for (std::size_t i = 0; i < l1.size(); ++i) store_be(&out[i * 8], l1[i]);
  return out;
}

// Counts all that an L1 table refers to once more, or once less. All tables are on disk.
Task<IoStatus> Qcow2Node::count_l1(const std::vector<u64>* l1, int delta) {
  AlignedMemory table{layout_.cluster()};
  if (!table) co_return IoStatus::kIoError;
  for (const u64 entry : *l1) {
    const u64 offset = entry & spec::kOffsetMask;
    if (offset == 0) continue;
    if (!is_aligned(offset, layout_.cluster())) co_return corrupt("an L2 table is not where tables can be");
    BH_IO_TRY(co_await file().read_bytes(offset, table.bytes()));
    Run run{};
    for (u64 i = 0; i <= u64{1} << layout_.l2_bits; ++i) {
      Run next{};
      if (i < u64{1} << layout_.l2_bits) {
        const L2Entry one = layout_.load(table.data(), i);
        if (Layout::compressed(one)) {
          const CompressedPlace place = layout_.place(one.entry);
          next.offset = place.offset >> layout_.cluster_bits;
          next.clusters = ((place.offset + place.bytes - 1) >> layout_.cluster_bits) - next.offset + 1;
        } else if (layout_.has_host(one)) {
          next = {layout_.host(one) >> layout_.cluster_bits, 1};
        } else if (i + 1 < u64{1} << layout_.l2_bits) {
          continue;
        }
      }
      if (run.clusters != 0 && next.clusters != 0 && next.offset == run.offset + run.clusters) {
        run.clusters += next.clusters;
        continue;
      }
      if (run.clusters != 0) BH_IO_TRY(co_await refcounts_.add(run.offset, run.clusters, delta));
      run = next;
    }
    if (run.clusters != 0) BH_IO_TRY(co_await refcounts_.add(run.offset, run.clusters, delta));
    BH_IO_TRY(co_await refcounts_.add(offset >> layout_.cluster_bits, 1, delta));
  }
  BH_IO_TRY(co_await refcounts_.write_all());
  co_return co_await sync();
}

// Some of a table was counted, and then it went no further: counts are put right by what there is.
Task<IoStatus> Qcow2Node::uncount(IoStatus why) {
  if (why == IoStatus::kCorrupt && !broken_)
    note_error(fmt::format("its refcounts of {} bits cannot count so many snapshots", 1U << refcounts_.order()));
  co_await refcounts_.write_all();
  co_await check(Repair::kLeaks);
  co_return why;
}

// Says in the active tables which clusters are ours alone.
Task<IoStatus> Qcow2Node::renew_copied() {
  AlignedMemory table{layout_.cluster()};
  if (!table) co_return IoStatus::kIoError;
  for (u64& entry : l1_) {
    const u64 offset = entry & spec::kOffsetMask;
    if (offset == 0) continue;
    BH_IO_TRY(co_await file().read_bytes(offset, table.bytes()));
    bool changed = false;
    for (u64 i = 0; i < u64{1} << layout_.l2_bits; ++i) {
      const L2Entry before = layout_.load(table.data(), i);
      if (!layout_.has_host(before)) continue;
      auto count = co_await refcounts_.get(layout_.host(before) >> layout_.cluster_bits);
      if (!count) co_return count.error();
      L2Entry now = before;
      now.entry = (before.entry & ~spec::kCopied) | (*count == 1 ? spec::kCopied : 0);
      if (now == before) continue;
      layout_.store(table.data(), i, now);
      changed = true;
    }
    if (changed) BH_IO_TRY(co_await file().write_bytes(offset, table.bytes()));
    auto count = co_await refcounts_.get(offset >> layout_.cluster_bits);
    if (!count) co_return count.error();
    entry = offset | (*count == 1 ? spec::kCopied : 0);
  }
  l2_.forget_all();
  const std::vector<std::byte> bytes = l1_bytes(l1_);
  if (!bytes.empty()) BH_IO_TRY(co_await file().write_bytes(header_.l1_offset, bytes));
  co_return co_await sync();
}

Task<IoStatus> Qcow2Node::store_snapshots(std::vector<Snapshot> now) {
  const std::vector<std::byte> bytes = serialize(now);
  u64 offset = 0;
  if (!bytes.empty()) {
    auto stored = co_await store_table(&bytes);
    if (!stored) co_return stored.error();
    offset = *stored;
  }
  const u64 old_offset = std::exchange(header_.snapshots_offset, offset);
  header_.snapshot_count = static_cast<u32>(now.size());
  BH_IO_TRY(co_await write_header());
  BH_IO_TRY(co_await sync());
  snapshots_ = std::move(now);
  const u64 old_bytes = std::exchange(snapshots_bytes_, bytes.size());
  co_return co_await free_now(old_offset, old_bytes);
}

static Result<void> done_or(IoStatus status, const char* what, const Node& node) {
  if (status == IoStatus::kOk) return {};
  const std::string why = node.last_error();
  return fail("{} in '{}': {}", what, node.name(), why.empty() ? std::string{text_of(status)} : why);
}

Task<Result<void>> Qcow2Node::create_snapshot(std::string name, u32 seconds, u32 nanoseconds) {
  if (read_only()) co_return fail("image '{}' is read-only", this->name());
  if (layout_.external)
    co_return fail("image '{}' has an external data file, so it can have no snapshots", this->name());
  if (name.empty() || name.size() > 65535) co_return fail("a snapshot's name has 1 to 65535 bytes");
  if (snapshots_.size() >= kMaxSnapshots) co_return fail("image '{}' has too many snapshots", this->name());
  if (std::ranges::find(snapshots_, name, &Snapshot::name) != snapshots_.end())
    co_return fail("image '{}' has a snapshot '{}' already", this->name(), name);
  co_return done_or(co_await take_snapshot(std::move(name), seconds, nanoseconds), "making a snapshot", *this);
}

Task<IoStatus> Qcow2Node::take_snapshot(std::string name, u32 seconds, u32 nanoseconds) {
  BH_IO_TRY(co_await before_change());
  BH_IO_TRY(co_await write_tables(true));
  Snapshot now;
  u64 id = 0;
  for (const Snapshot& one : snapshots_) id = std::max<u64>(id, std::strtoull(one.id.c_str(), nullptr, 10));
  now.id = std::to_string(id + 1);
  now.name = std::move(name);
  now.seconds = seconds;
  now.nanoseconds = nanoseconds;
  now.disk_size = size();
  now.l1_size = static_cast<u32>(l1_.size());
  std::vector<u64> l1 = l1_;
  for (u64& entry : l1) entry &= ~spec::kCopied;
  const std::vector<std::byte> bytes = l1_bytes(l1);
  auto stored = co_await store_table(&bytes);
  if (!stored) co_return stored.error();
  now.l1_offset = *stored;
  const IoStatus counted = co_await count_l1(&l1, +1);
  if (counted != IoStatus::kOk) co_return co_await uncount(counted);
  BH_IO_TRY(co_await renew_copied());
  std::vector<Snapshot> all = snapshots_;
  all.push_back(std::move(now));
  co_return co_await store_snapshots(std::move(all));
}

Task<Result<void>> Qcow2Node::apply_snapshot(std::string name) {
  const Snapshot* const found = find_snapshot(name);
  if (found == nullptr) co_return fail("image '{}' has no snapshot '{}'", this->name(), name);
  if (read_only()) co_return fail("image '{}' is read-only", this->name());
  co_return done_or(co_await go_back_to(*found), "going back to a snapshot", *this);
}

Task<IoStatus> Qcow2Node::go_back_to(Snapshot snapshot) {
  BH_IO_TRY(co_await before_change());
  BH_IO_TRY(co_await write_tables(true));
  if (snapshot.l1_size > l1_.size()) BH_IO_TRY(co_await grow_l1(snapshot.l1_size));
  auto wanted = co_await load_l1(snapshot.l1_offset, snapshot.l1_size);
  if (!wanted) co_return wanted.error();
  wanted->resize(l1_.size());
  const IoStatus counted = co_await count_l1(&*wanted, +1);
  if (counted != IoStatus::kOk) co_return co_await uncount(counted);
  const std::vector<std::byte> bytes = l1_bytes(*wanted);
  BH_IO_TRY(co_await file().write_bytes(header_.l1_offset, bytes));
  if (snapshot.disk_size != size()) {
    header_.size = snapshot.disk_size;
    BH_IO_TRY(co_await write_header());
    set_size(snapshot.disk_size);
  }
  BH_IO_TRY(co_await sync());
  l2_.forget_all();
  const std::vector<u64> before = std::exchange(l1_, std::move(*wanted));
  BH_IO_TRY(co_await count_l1(&before, -1));
  const IoStatus status = co_await renew_copied();
  note_all_metadata();
  co_return status;
}

Task<Result<void>> Qcow2Node::delete_snapshot(std::string name) {
  const Snapshot* const found = find_snapshot(name);
  if (found == nullptr) co_return fail("image '{}' has no snapshot '{}'", this->name(), name);
  if (read_only()) co_return fail("image '{}' is read-only", this->name());
  co_return done_or(co_await drop_snapshot(*found), "deleting a snapshot", *this);
}

Task<IoStatus> Qcow2Node::drop_snapshot(Snapshot snapshot) {
  BH_IO_TRY(co_await before_change());
  BH_IO_TRY(co_await write_tables(true));
  auto l1 = co_await load_l1(snapshot.l1_offset, snapshot.l1_size);
  if (!l1) co_return l1.error();
  std::vector<Snapshot> rest = snapshots_;
  std::erase_if(rest, [&](const Snapshot& one) { return one.id == snapshot.id && one.name == snapshot.name; });
  BH_IO_TRY(co_await store_snapshots(std::move(rest)));
  BH_IO_TRY(co_await count_l1(&*l1, -1));
  BH_IO_TRY(co_await free_now(snapshot.l1_offset, u64{snapshot.l1_size} * 8));
  const IoStatus status = co_await renew_copied();
  note_all_metadata();
  co_return status;
}

}  // namespace bulkhead::block::qcow2
