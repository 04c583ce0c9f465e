// Tables of an image that are in memory: L2 slices or refcount blocks, a bounded number, by their place in the file.
// What was changed stays until somebody writes it: when and in what order is their owner's affair.
// Executor's thread.
#pragma once
#include <memory>
#include <unordered_map>
#include <vector>

#include "block/async/wait.h"
#include "block/node/node.h"

namespace bulkhead::block::qcow2 {

class TableCache;

struct Table {
  explicit Table(Executor& executor) : changed{executor} {}
  u64 offset = 0;  // in the file
  AlignedMemory memory;
  u64 used = 0;  // when last, in lookups
  u32 pins = 0;  // who holds it
  u32 dirty_begin = 0, dirty_end = 0;
  bool loading = false, writing = false, failed = false;
  WaitList changed;  // the end of loading or writing

  std::byte* bytes() const { return memory.data(); }
  bool dirty() const { return dirty_end != 0; }
  void mark(u64 begin, u64 length) {
    dirty_begin = dirty_end == 0 ? static_cast<u32>(begin) : std::min(dirty_begin, static_cast<u32>(begin));
    dirty_end = std::max(dirty_end, static_cast<u32>(begin + length));
  }
};

// Keeps a table in memory.
class TablePin {
 public:
  TablePin() = default;
  explicit TablePin(Table* table) : table_{table} { ++table_->pins; }
  TablePin(TablePin&& other) noexcept : table_{std::exchange(other.table_, nullptr)} {}
  TablePin& operator=(TablePin&& other) noexcept {
    std::swap(table_, other.table_);
    return *this;
  }
  ~TablePin() {
    if (table_ != nullptr) --table_->pins;
  }
  Table* operator->() const { return table_; }
  Table& operator*() const { return *table_; }
  explicit operator bool() const { return table_ != nullptr; }

 private:
  Table* table_ = nullptr;
};

// Who can clean tables when all are dirty.
class TableOwner {
 public:
  virtual Task<IoStatus> write_some_tables(TableCache& cache) = 0;

 protected:
  ~TableOwner() = default;
};

class TableCache {
 public:
  TableCache(Node& file, TableOwner& owner, u64 table_bytes, u64 max_bytes);
  ~TableCache();

  // In memory already, or nullptr. For one turn: pin it to keep it.
  Table* find(u64 offset) {
    if (last_ == nullptr || last_->offset != offset) {
      const auto found = tables_.find(offset);
      if (found == tables_.end()) return nullptr;
      last_ = found->second.get();
    }
    if (last_->loading) return nullptr;
    last_->used = ++clock_;
    return last_;
  }
  Task<IoResult<TablePin>> load(u64 offset);
  // A new one, all zeroes and clean, that takes the place of what there was.
  Task<IoResult<TablePin>> make(u64 offset);
  void forget(u64 offset, u64 length);  // tables there are no more, dirty or not
  void forget_all();                    // none is pinned or dirty

  u64 table_bytes() const { return table_bytes_; }
  std::vector<Table*> dirty() const;  // or being written; in the order of their places
  // Writes what is dirty of one, as it is now. It stays in memory meanwhile, and may be changed.
  Task<IoStatus> write(Table* table);
  u64 count() const { return tables_.size(); }

 private:
  Task<IoResult<TablePin>> place(u64 offset);
  bool evict_one();
  Node& file_;
  TableOwner& owner_;
  const u64 table_bytes_, max_tables_;
  u64 clock_ = 0;
  Table* last_ = nullptr;
  std::unordered_map<u64, std::unique_ptr<Table>> tables_;
  std::vector<std::unique_ptr<Table>> orphans_;  // forgotten while somebody held them
};

}  // namespace bulkhead::block::qcow2
