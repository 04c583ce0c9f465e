// Compares what all tables refer to with the refcounts, and mends either. Memory grows with what is referred to, and
// not with what a file claims.
#include <algorithm>
#include <unordered_map>

#include "block/qcow2/qcow2_node.h"

namespace bulkhead::block::qcow2 {

namespace spec = bulkhead::spec::qcow2;

namespace {

constexpr std::size_t kMostMessages = 100;
constexpr u64 kChunk = 4096;

// How often each cluster is referred to.
class References {
 public:
  void add(u64 cluster) { ++chunk(cluster)[cluster % kChunk]; }
  u32 get(u64 cluster) const {
    const auto found = chunks_.find(cluster / kChunk);
    return found == chunks_.end() ? 0 : found->second[cluster % kChunk];
  }
  std::vector<u64> clusters() const {  // that are referred to, in order
    std::vector<u64> out;
    for (const auto& [index, counts] : chunks_)
      for (u64 i = 0; i < kChunk; ++i)
        if (counts[i] != 0) out.push_back(index * kChunk + i);
    std::ranges::sort(out);
    return out;
  }

 private:
  std::vector<u32>& chunk(u64 cluster) {
    std::vector<u32>& out = chunks_[cluster / kChunk];
    if (out.empty()) out.resize(kChunk);
    return out;
  }
  std::unordered_map<u64, std::vector<u32>> chunks_;
};

}  // namespace

class Checker {
 public:
  Checker(Qcow2Node& image, Repair repair) : image_{image}, repair_{repair} {}

  Task<IoResult<CheckResult>> run() {
    BH_IO_TRY(co_await walk());
    BH_IO_TRY(co_await compare());
    BH_IO_TRY(co_await mend());
    result_.total_clusters = align_up(image_.size(), cluster()) / cluster();
    co_return std::move(result_);
  }

 private:
  u64 cluster() const { return image_.layout_.cluster(); }
  unsigned bits() const { return image_.layout_.cluster_bits; }

  void say(std::string text) {
    if (result_.messages.size() < kMostMessages) result_.messages.push_back(std::move(text));
  }
  void corruption(std::string text) {
    ++result_.corruptions;
    say("ERROR " + std::move(text));
  }
  // False: nothing can be there.
  bool use(u64 offset, u64 bytes, std::string_view what) {
    if (bytes == 0) return true;
    if (!is_aligned(offset, cluster()) || offset > align_up(image_.file().size(), cluster()) + 64_MiB) {
      corruption(fmt::format("{} at byte {:#x}: nothing can be there, the file has {} bytes", what, offset,
                             image_.file().size()));
      return false;
    }
    for (u64 at = offset; at < offset + bytes; at += cluster()) references_.add(at >> bits());
    result_.image_end = std::max(result_.image_end, align_up(offset + bytes, cluster()));
    return true;
  }

  Task<IoStatus> walk() {
    const Header& header = image_.header_;
    use(0, cluster(), "header");
    if (header.encryption) use(header.encryption->offset, header.encryption->length, "LUKS header");
    use(header.l1_offset, image_.l1_.size() * 8, "L1 table");
    BH_IO_TRY(co_await walk_l1(&image_.l1_, true));
    use(header.snapshots_offset, image_.snapshots_bytes_, "snapshot table");
    for (const Snapshot& snapshot : image_.snapshots_) {
      if (!use(snapshot.l1_offset, u64{snapshot.l1_size} * 8, "a snapshot's L1 table")) continue;
      auto l1 = co_await image_.load_l1(snapshot.l1_offset, snapshot.l1_size);
      if (!l1) co_return l1.error();
      BH_IO_TRY(co_await walk_l1(&*l1, false));
    }
    co_return co_await walk_bitmaps();
  }

  Task<IoStatus> walk_bitmaps() {
    if (!image_.header_.bitmaps) co_return IoStatus::kOk;
    use(image_.header_.bitmaps->directory_offset, image_.header_.bitmaps->directory_size, "bitmap directory");
    for (const Bitmap& bitmap : image_.bitmaps_) {
      if (!use(bitmap.table_offset, u64{bitmap.table_size} * 8, "a bitmap's table")) continue;
      auto table = co_await image_.load_l1(bitmap.table_offset, bitmap.table_size);
      if (!table) co_return table.error();
      for (const u64 entry : *table)
        if ((entry & spec::kOffsetMask) != 0) use(entry & spec::kOffsetMask, cluster(), "a bitmap's data");
    }
    co_return IoStatus::kOk;
  }

  Task<IoStatus> walk_l1(const std::vector<u64>* l1, bool active) {
    AlignedMemory table{cluster()};
    if (!table) co_return IoStatus::kIoError;
    for (const u64 entry : *l1) {
      const u64 offset = entry & spec::kOffsetMask;
      if (offset == 0 || !use(offset, cluster(), "an L2 table")) continue;
      BH_IO_TRY(co_await image_.file().read_bytes(offset, table.bytes()));
      const bool changed = co_await walk_l2(table.data(), active);
      if (changed) BH_IO_TRY(co_await image_.file().write_bytes(offset, table.bytes()));
      const auto count = co_await image_.refcounts_.get(offset >> bits());
      if (active && count && ((entry & spec::kCopied) != 0) != (*count == 1)) copied_wrong_ = true;
    }
    co_return IoStatus::kOk;
  }

  Task<bool> walk_l2(std::byte* table, bool active) {
    const Layout& layout = image_.layout_;
    bool changed = false;
    u64 next = 0;
    for (u64 i = 0; i < u64{1} << layout.l2_bits; ++i) {
      const L2Entry entry = layout.load(table, i);
      if (Layout::compressed(entry) && !layout.external) {
        const CompressedPlace place = layout.place(entry.entry);
        const u64 begin = align_down(place.offset, cluster());
        use(begin, place.offset + place.bytes - begin, "compressed data");
        if (active) ++result_.compressed_clusters, ++result_.allocated_clusters, ++result_.fragmented_clusters;
        continue;
      }
      if (layout.kind(entry, 0) == ExtentKind::kBad) {
        corruption(fmt::format("an L2 entry is {:#x}, which contradicts itself", entry.entry));
        continue;
      }
      if (!layout.has_host(entry)) continue;
      const u64 host = layout.host(entry);
      if (active) {
        ++result_.allocated_clusters;
        if (next != 0 && host != next) ++result_.fragmented_clusters;
        next = host + cluster();
      }
      if (layout.external) continue;
      use(host, cluster(), "data");
      const auto count = co_await image_.refcounts_.get(host >> bits());
      if (active && count && Layout::copied(entry) != (*count == 1)) {
        corruption(fmt::format("OFLAG_COPIED data cluster: l2_entry={:#x} refcount={}", entry.entry, *count));
        copied_wrong_ = true;
      }
    }
    co_return changed;
  }

  // The refcount structures themselves, then count by count.
  Task<IoStatus> compare() {
    Refcounts& refcounts = image_.refcounts_;
    before_tables_ = references_;
    use(image_.header_.refcount_table_offset, image_.header_.refcount_table_clusters * cluster(), "refcount table");
    for (const u64 block : refcounts.table())
      if (block != 0 && !use(block, cluster(), "a refcount block")) blocks_wrong_ = true;
    for (const u64 block : refcounts.table())
      if (block != 0 && references_.get(block >> bits()) > 1) {
        corruption(fmt::format("the refcount block at byte {:#x} is used for something else, too", block));
        blocks_wrong_ = true;
      }
    if (blocks_wrong_) co_return IoStatus::kOk;
    const u64 per_block = refcounts.counts_per_block();
    for (u64 i = 0; i < refcounts.table().size(); ++i) {
      if (refcounts.table()[i] == 0) continue;
      for (u64 at = i * per_block; at < (i + 1) * per_block; ++at) {
        const auto count = co_await refcounts.get(at);
        if (!count) co_return count.error();
        judge(at, *count);
      }
    }
    for (const u64 at : references_.clusters()) {
      const u64 index = at / per_block;
      if (index < refcounts.table().size() && refcounts.table()[index] != 0) continue;
      judge(at, 0);
      blocks_wrong_ = true;
    }
    co_return IoStatus::kOk;
  }

  void judge(u64 cluster, u64 count) {
    const u64 expected = references_.get(cluster);
    if (count == expected) return;
    wrong_.push_back(cluster);
    if (count > expected) {
      ++result_.leaks;
      say(fmt::format("Leaked cluster {} refcount={} reference={}", cluster, count, expected));
    } else {
      ++too_low_;
      corruption(fmt::format("cluster {} refcount={} reference={}", cluster, count, expected));
    }
  }

  Task<IoStatus> mend() {
    if (repair_ == Repair::kNone || image_.read_only()) co_return IoStatus::kOk;
    if (repair_ == Repair::kLeaks && (blocks_wrong_ || too_low_ != 0)) co_return IoStatus::kOk;
    if (blocks_wrong_) {
      BH_IO_TRY(co_await rebuild());
    } else {
      for (const u64 cluster : wrong_) BH_IO_TRY(co_await image_.refcounts_.set(cluster, references_.get(cluster)));
      BH_IO_TRY(co_await image_.refcounts_.write_all());
    }
    BH_IO_TRY(co_await image_.sync());
    result_.leaks_fixed = result_.leaks;
    if (repair_ != Repair::kAll) co_return IoStatus::kOk;
    if (copied_wrong_ || too_low_ != 0 || !wrong_.empty()) BH_IO_TRY(co_await image_.renew_copied());
    // A second look says what is left.
    Checker again{image_, Repair::kNone};
    auto left = co_await again.run();
    if (!left) co_return left.error();
    result_.corruptions_fixed = result_.corruptions - std::min(result_.corruptions, left->corruptions);
    image_.note_all_metadata();
    if (left->corruptions != 0) co_return IoStatus::kOk;
    if ((image_.header_.incompatible & (spec::kDirty | spec::kCorrupt)) == 0) co_return IoStatus::kOk;
    image_.header_.incompatible &= ~u64{spec::kDirty | spec::kCorrupt};
    BH_IO_TRY(co_await image_.write_header());
    co_return co_await image_.sync();
  }

  // All refcount structures anew, behind everything that is used.
  Task<IoStatus> rebuild() {
    references_ = before_tables_;
    const u64 per_block = image_.refcounts_.counts_per_block();
    std::vector<u64> used = references_.clusters();
    const u64 start = std::max(align_up(image_.file().size(), cluster()) >> bits(), used.empty() ? 1 : used.back() + 1);
    std::vector<u64> indices;
    u64 table_clusters = 1;
    while (true) {
      indices.clear();
      for (const u64 at : used)
        if (indices.empty() || indices.back() != at / per_block) indices.push_back(at / per_block);
      const u64 end = start + table_clusters + indices.size() + 1;
      for (u64 i = start / per_block; i <= end / per_block; ++i)
        if (indices.empty() || indices.back() < i) indices.push_back(i);
      const u64 need = align_up((indices.back() + 1) * 8, cluster()) >> bits();
      if (need <= table_clusters && start + table_clusters + indices.size() <= (indices.back() + 1) * per_block) break;
      table_clusters = std::max(need, table_clusters);
    }
    if (table_clusters * cluster() > kMaxRefcountTableBytes) co_return IoStatus::kNoSpace;
    for (u64 i = 0; i < table_clusters + indices.size(); ++i) references_.add(start + i);
    AlignedMemory table{table_clusters * cluster()}, block{cluster()};
    if (!table || !block) co_return IoStatus::kIoError;
    std::memset(table.data(), 0, table.size());
    for (u64 i = 0; i < indices.size(); ++i) {
      std::memset(block.data(), 0, block.size());
      for (u64 k = 0; k < per_block; ++k)
        if (const u32 count = references_.get(indices[i] * per_block + k); count != 0)
          set_count(block.data(), image_.refcounts_.order(), k, std::min<u64>(count, image_.refcounts_.max_count()));
      const u64 at = (start + table_clusters + i) << bits();
      BH_IO_TRY(co_await image_.file().write_bytes(at, block.bytes()));
      store_be(table.data() + indices[i] * 8, at);
    }
    BH_IO_TRY(co_await image_.file().write_bytes(start << bits(), table.bytes()));
    BH_IO_TRY(co_await image_.sync());
    image_.header_.refcount_table_offset = start << bits();
    image_.header_.refcount_table_clusters = static_cast<u32>(table_clusters);
    BH_IO_TRY(co_await image_.write_header());
    image_.refcounts_.reset();
    co_return co_await image_.refcounts_.load_table();
  }

  Qcow2Node& image_;
  const Repair repair_;
  CheckResult result_;
  References references_, before_tables_;
  std::vector<u64> wrong_;
  u64 too_low_ = 0;
  bool copied_wrong_ = false, blocks_wrong_ = false;
};

Task<IoResult<CheckResult>> Qcow2Node::check(Repair repair) {
  if (ready_ && !read_only()) BH_IO_TRY(co_await write_tables(true));
  if (ready_ && !read_only()) BH_IO_TRY(co_await refcounts_.write_all());
  Checker checker{*this, repair};
  auto result = co_await checker.run();
  if (result && repair != Repair::kNone && file().driver() == "file")
    fresh_from_ = align_up(file().size(), layout_.cluster());
  co_return result;
}

}  // namespace bulkhead::block::qcow2
