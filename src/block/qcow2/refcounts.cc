#include "block/qcow2/refcounts.h"

#include <algorithm>

#include "base/big_endian.h"
#include "base/bits.h"

namespace bulkhead::block::qcow2 {

namespace spec = bulkhead::spec::qcow2;

u64 get_count(const std::byte* block, unsigned order, u64 index) {
  switch (order) {
    case 3:
      return static_cast<u64>(block[index]);
    case 4:
      return load_be<u16>(block + index * 2);
    case 5:
      return load_be<u32>(block + index * 4);
    case 6:
      return load_be<u64>(block + index * 8);
    default: {
      const unsigned per_byte = 8U >> order, width = 1U << order;
      const unsigned shift = static_cast<unsigned>(index % per_byte) * width;
      return (static_cast<unsigned>(block[index / per_byte]) >> shift) & ((1U << width) - 1);
    }
  }
}

void set_count(std::byte* block, unsigned order, u64 index, u64 value) {
  switch (order) {
    case 3:
      block[index] = static_cast<std::byte>(value);
      return;
    case 4:
      return store_be(block + index * 2, static_cast<u16>(value));
    case 5:
      return store_be(block + index * 4, static_cast<u32>(value));
    case 6:
      return store_be(block + index * 8, value);
    default: {
      const unsigned per_byte = 8U >> order, width = 1U << order;
      const unsigned shift = static_cast<unsigned>(index % per_byte) * width, mask = ((1U << width) - 1) << shift;
      std::byte& at = block[index / per_byte];
      at = static_cast<std::byte>((static_cast<unsigned>(at) & ~mask) | (static_cast<unsigned>(value) << shift));
    }
  }
}

Refcounts::Refcounts(Node& file, Header& header, Ports ports)
    : file_{file},
      header_{header},
      ports_{std::move(ports)},
      blocks_{file, *this, header.cluster_size(), std::max<u64>(8_MiB, header.cluster_size() * 8)} {}

Task<IoStatus> Refcounts::load_table() {
  AlignedMemory memory{header_.refcount_table_clusters * header_.cluster_size()};
  if (!memory) co_return IoStatus::kIoError;
  BH_IO_TRY(co_await file_.read_bytes(header_.refcount_table_offset, memory.bytes()));
  table_.resize(memory.size() / 8);
  for (std::size_t i = 0; i < table_.size(); ++i) table_[i] = load_be<u64>(memory.data() + i * 8);
  co_return IoStatus::kOk;
}

Task<IoStatus> Refcounts::write_some_tables(TableCache&) { return write_all(); }

Task<IoStatus> Refcounts::write_all() {
  std::vector<TablePin> tables;
  for (Table* table : blocks_.dirty()) tables.emplace_back(table);
  for (TablePin& table : tables) {
    unsynced_ = true;
    BH_IO_TRY(co_await blocks_.write(&*table));
  }
  co_return IoStatus::kOk;
}

Task<IoResult<TablePin>> Refcounts::block(u64 index, bool make) {
  const u64 entry = index < table_.size() ? table_[index] : 0;
  if (entry != 0) {
    // [qcow2 "Host cluster management"]: cluster-aligned, the low bits reserved.
    if (!is_aligned(entry, header_.cluster_size()) || entry > (u64{1} << 56))
      co_return std::unexpected(IoStatus::kCorrupt);
    co_return co_await blocks_.load(entry);
  }
  if (!make) co_return TablePin{};
  co_return co_await make_block(index);
}

// The block counts itself: it stands at the start of what it covers, where nothing can be yet.
Task<IoResult<TablePin>> Refcounts::make_block(u64 index) {
  if (index >= table_.size()) {
    BH_IO_TRY(co_await grow((index + 1) * counts_per_block()));
    co_return co_await block(index, true);
  }
  const u64 cluster = index * counts_per_block(), offset = cluster << header_.cluster_bits;
  if (index == 0 || ports_.is_metadata(offset, header_.cluster_size())) co_return std::unexpected(IoStatus::kCorrupt);
  auto made = co_await blocks_.make(offset);
  if (!made) co_return std::unexpected(made.error());
  TablePin pin = std::move(*made);
  set_count(pin->bytes(), order(), 0, 1);
  pin->mark(0, blocks_.table_bytes());
  table_[index] = offset;
  IoStatus status = co_await blocks_.write(&*pin);
  if (status == IoStatus::kOk) status = co_await ports_.sync();
  std::byte entry[8];
  store_be(entry, offset);
  if (status == IoStatus::kOk) status = co_await file_.write_bytes(header_.refcount_table_offset + index * 8, entry);
  if (status == IoStatus::kOk) {
    ports_.new_block(offset);
    co_return pin;
  }
  table_[index] = 0;
  pin = TablePin{};
  blocks_.forget(offset, 1);
  co_return std::unexpected(status);
}

// A longer table for at least so many clusters, behind all that the old one covers, with blocks that count it.
Task<IoStatus> Refcounts::grow(u64 clusters) {
  const u64 per_block = counts_per_block(), first = covered(), cluster = header_.cluster_size();
  const u64 entries_per_cluster = cluster / 8;
  u64 blocks = 1, table_clusters = 0;
  while (true) {
    const u64 wanted = std::max(table_.size() + table_.size() / 2, (clusters + per_block - 1) / per_block) + blocks;
    table_clusters = (wanted + entries_per_cluster - 1) / entries_per_cluster;
    const u64 needed = (blocks + table_clusters + per_block - 1) / per_block;
    if (needed <= blocks) break;
    blocks = needed;
  }
  if (table_clusters * cluster > kMaxRefcountTableBytes) co_return IoStatus::kNoSpace;
  std::vector<u64> table = table_;
  table.resize(table_clusters * entries_per_cluster);
  for (u64 i = 0; i < blocks; ++i) {
    const u64 offset = (first + i) << header_.cluster_bits;
    auto made = co_await blocks_.make(offset);
    if (!made) co_return made.error();
    const u64 used = blocks + table_clusters - std::min(blocks + table_clusters, i * per_block);
    for (u64 k = 0; k < std::min(used, per_block); ++k) set_count((*made)->bytes(), order(), k, 1);
    (*made)->mark(0, cluster);
    BH_IO_TRY(co_await blocks_.write(&**made));
    table[first / per_block + i] = offset;
  }
  const u64 offset = (first + blocks) << header_.cluster_bits;
  AlignedMemory memory{table_clusters * cluster};
  if (!memory) co_return IoStatus::kIoError;
  for (std::size_t i = 0; i < table.size(); ++i) store_be(memory.data() + i * 8, table[i]);
  BH_IO_TRY(co_await file_.write_bytes(offset, memory.bytes()));
  BH_IO_TRY(co_await ports_.sync());
  const u64 old_offset = std::exchange(header_.refcount_table_offset, offset);
  const u32 old_clusters = std::exchange(header_.refcount_table_clusters, static_cast<u32>(table_clusters));
  IoStatus status = co_await ports_.write_header();
  if (status != IoStatus::kOk) {
    header_.refcount_table_offset = old_offset;
    header_.refcount_table_clusters = old_clusters;
    co_return status;
  }
  table_ = std::move(table);
  BH_IO_TRY(co_await ports_.sync());
  BH_IO_TRY(co_await add(old_offset >> header_.cluster_bits, old_clusters, -1));
  ports_.table_moved();
  co_return IoStatus::kOk;
}

Task<IoResult<u64>> Refcounts::get(u64 cluster) {
  auto found = co_await block(cluster / counts_per_block(), false);
  if (!found) co_return std::unexpected(found.error());
  if (!*found) co_return u64{0};
  co_return get_count((*found)->bytes(), order(), cluster % counts_per_block());
}

Task<IoStatus> Refcounts::add(u64 cluster, u64 count, int delta) {
  const u64 per_block = counts_per_block();
  while (count != 0) {
    auto found = co_await block(cluster / per_block, delta > 0);
    if (!found) co_return found.error();
    if (!*found) co_return IoStatus::kCorrupt;
    Table& table = **found;
    const u64 here = std::min(count, per_block - cluster % per_block);
    for (u64 i = 0; i < here; ++i) {
      const u64 index = cluster % per_block + i, value = get_count(table.bytes(), order(), index);
      if (delta > 0 ? value == max_count() : value == 0) co_return IoStatus::kCorrupt;
      set_count(table.bytes(), order(), index, delta > 0 ? value + 1 : value - 1);
      table.mark((index << order()) / 8, std::max<u64>((u64{1} << order()) / 8, 1));
      if (delta < 0 && value == 1) hint_ = std::min(hint_, cluster + i);
    }
    cluster += here;
    count -= here;
  }
  co_return IoStatus::kOk;
}

Task<IoStatus> Refcounts::set(u64 cluster, u64 count) {
  if (count > max_count()) co_return IoStatus::kCorrupt;
  auto found = co_await block(cluster / counts_per_block(), true);
  if (!found) co_return found.error();
  const u64 index = cluster % counts_per_block();
  set_count((*found)->bytes(), order(), index, count);
  (*found)->mark((index << order()) / 8, std::max<u64>((u64{1} << order()) / 8, 1));
  if (count == 0) hint_ = std::min(hint_, cluster);
  co_return IoStatus::kOk;
}

// From `from` on, the first free cluster into *begin, and how many free ones from there, at most `most`.
Task<IoResult<u64>> Refcounts::free_run(u64 from, u64 most, u64* begin) {
  const u64 per_block = counts_per_block();
  u64 length = 0;
  *begin = from;
  for (u64 at = from; length < most;) {
    auto found = co_await block(at / per_block, true);
    if (!found) co_return std::unexpected(found.error());
    const std::byte* const bytes = (*found)->bytes();
    const u64 end = align_up(at + 1, per_block);
    for (; at < end && length < most; ++at) {
      if (get_count(bytes, order(), at % per_block) == 0) {
        if (length++ == 0) *begin = at;
      } else if (length != 0) {
        co_return length;
      }
    }
  }
  co_return length;
}

Task<IoResult<Run>> Refcounts::allocate(u64 clusters, bool exact) {
  u64 from = hint_;
  bool first = true;
  while (true) {
    u64 begin = 0;
    auto found = co_await free_run(from, clusters, &begin);
    if (!found) co_return std::unexpected(found.error());
    if (first) hint_ = begin;
    first = false;
    if (*found < clusters && exact) {
      from = begin + *found;
      continue;
    }
    const u64 offset = begin << header_.cluster_bits;
    if (offset + (*found << header_.cluster_bits) > (u64{1} << 56)) co_return std::unexpected(IoStatus::kNoSpace);
    if (ports_.is_metadata(offset, *found << header_.cluster_bits)) co_return std::unexpected(IoStatus::kCorrupt);
    BH_IO_TRY(co_await add(begin, *found, +1));
    if (hint_ == begin) hint_ = begin + *found;
    co_return Run{offset, *found};
  }
}

}  // namespace bulkhead::block::qcow2
