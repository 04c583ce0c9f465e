// Who uses which cluster of an image's file: refcounts of 1 to 64 bits in blocks, and finding free clusters
// [qcow2 "Host cluster management"].
//
// At any time the counts in memory are no less than what any table, in memory or on disk, refers to; so a block may be
// written whenever one likes, and only has to be written before a table that uses what it counts. What is no longer
// used is let go only after the tables that said so are on disk (Image::flush).
// Executor's thread; who changes counts holds the image's allocation lock.
#pragma once
#include <functional>
#include <vector>

#include "block/qcow2/header.h"
#include "block/qcow2/table_cache.h"

namespace bulkhead::block::qcow2 {

// One block's counts, of 2^order bits each.
u64 get_count(const std::byte* block, unsigned order, u64 index);
void set_count(std::byte* block, unsigned order, u64 index, u64 value);

struct Run {
  u64 offset = 0;  // in the file, bytes
  u64 clusters = 0;
};

class Refcounts final : public TableOwner {
 public:
  struct Ports {
    std::function<Task<IoStatus>()> sync;          // what was written is on stable storage
    std::function<Task<IoStatus>()> write_header;  // the table has moved
    std::function<bool(u64 offset, u64 bytes)> is_metadata;
    std::function<void(u64 offset)> new_block;  // there is a new block
    std::function<void()> table_moved;
  };
  Refcounts(Node& file, Header& header, Ports ports);

  Task<IoStatus> load_table();
  Task<IoResult<u64>> get(u64 cluster);  // past the table's end: 0
  // Adds 1 or takes 1 away from each. Errors: kCorrupt where that cannot be: nothing of it, or the first part, is done.
  Task<IoStatus> add(u64 cluster, u64 count, int delta);
  // For repair. Errors: kCorrupt where so much cannot be counted.
  Task<IoStatus> set(u64 cluster, u64 count);
  // The first free run of at most `clusters`, at least one, now counted once each. With `exact`, all in one run.
  Task<IoResult<Run>> allocate(u64 clusters, bool exact);
  Task<IoStatus> write_all();
  // True if blocks were written since it was asked last: a sync is due before what depends on them is written.
  bool take_unsynced() { return std::exchange(unsynced_, false); }

  unsigned order() const { return header_.refcount_order; }
  u64 max_count() const { return order() == 6 ? ~u64{0} : (u64{1} << (u64{1} << order())) - 1; }
  u64 counts_per_block() const { return (header_.cluster_size() * 8) >> order(); }
  const std::vector<u64>& table() const { return table_; }
  std::vector<u64>& mutable_table() { return table_; }
  void set_hint(u64 cluster) { hint_ = std::min(hint_, cluster); }
  void reset() {
    blocks_.forget_all();
    hint_ = 0;
  }
  Task<IoStatus> write_some_tables(TableCache& cache) override;

 private:
  u64 covered() const { return table_.size() * counts_per_block(); }
  Task<IoResult<TablePin>> block(u64 index, bool make);
  Task<IoResult<TablePin>> make_block(u64 index);
  Task<IoStatus> grow(u64 clusters);
  Task<IoResult<u64>> free_run(u64 from, u64 most, u64* begin);
  Node& file_;
  Header& header_;
  Ports ports_;
  std::vector<u64> table_;  // as on disk; in the machine's byte order
  TableCache blocks_;
  u64 hint_ = 0;  // no cluster before is free
  bool unsynced_ = false;
};

}  // namespace bulkhead::block::qcow2
