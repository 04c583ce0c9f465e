#include "block/qcow2/table_cache.h"

#include <algorithm>
#include <cstring>

#include "base/bits.h"

namespace bulkhead::block::qcow2 {

TableCache::TableCache(Node& file, TableOwner& owner, u64 table_bytes, u64 max_bytes)
    : file_{file}, owner_{owner}, table_bytes_{table_bytes}, max_tables_{std::max<u64>(max_bytes / table_bytes, 8)} {}
TableCache::~TableCache() = default;

bool TableCache::evict_one() {
  std::erase_if(orphans_, [](const std::unique_ptr<Table>& table) { return table->pins == 0; });
  Table* oldest = nullptr;
  for (const auto& [offset, table] : tables_)
    if (table->pins == 0 && !table->dirty() && !table->writing && !table->loading &&
        (oldest == nullptr || table->used < oldest->used))
      oldest = table.get();
  if (oldest == nullptr) return false;
  if (oldest == last_) last_ = nullptr;
  tables_.erase(oldest->offset);
  return true;
}

// A table for `offset` that is not there yet. Room is made first; if all are held, there is one more than should be.
Task<IoResult<TablePin>> TableCache::place(u64 offset) {
  for (unsigned tries = 0; tables_.size() >= max_tables_ && tries < 4; ++tries) {
    if (evict_one()) continue;
    const IoStatus status = co_await owner_.write_some_tables(*this);
    if (status != IoStatus::kOk) co_return std::unexpected(status);
  }
  auto& slot = tables_[offset];
  if (slot != nullptr) co_return TablePin{};  // somebody else was faster
  slot = std::make_unique<Table>(file_.executor());
  slot->offset = offset;
  slot->memory = AlignedMemory{table_bytes_};
  slot->used = ++clock_;
  if (!slot->memory) {
    tables_.erase(offset);
    co_return std::unexpected(IoStatus::kIoError);
  }
  co_return TablePin{slot.get()};
}

Task<IoResult<TablePin>> TableCache::load(u64 offset) {
  while (true) {
    const auto found = tables_.find(offset);
    if (found != tables_.end()) {
      TablePin pin{found->second.get()};
      while (pin->loading) co_await pin->changed.wait();
      if (pin->failed) co_return std::unexpected(IoStatus::kIoError);
      pin->used = ++clock_;
      co_return pin;
    }
    auto placed = co_await place(offset);
    if (!placed) co_return std::unexpected(placed.error());
    if (!*placed) continue;
    TablePin pin = std::move(*placed);
    pin->loading = true;
    const IoStatus status = co_await file_.read_bytes(offset, pin->memory.bytes());
    pin->loading = false;
    pin->failed = status != IoStatus::kOk;
    pin->changed.wake_all();
    if (status == IoStatus::kOk) co_return pin;
    // Whoever waits holds its own pin: the table goes when they have seen it, at the next load.
    while (pin->pins > 1) co_await file_.executor().yield();
    if (last_ == &*pin) last_ = nullptr;
    pin = TablePin{};
    tables_.erase(offset);
    co_return std::unexpected(status);
  }
}

Task<IoResult<TablePin>> TableCache::make(u64 offset) {
  forget(offset, 1);
  auto placed = co_await place(offset);
  if (!placed) co_return std::unexpected(placed.error());
  if (!*placed) co_return std::unexpected(IoStatus::kCorrupt);  // somebody reads a table where none was
  std::memset((*placed)->bytes(), 0, table_bytes_);
  co_return std::move(*placed);
}

void TableCache::forget(u64 offset, u64 length) {
  for (u64 at = align_down(offset, table_bytes_); at < offset + length; at += table_bytes_) {
    const auto found = tables_.find(at);
    if (found == tables_.end()) continue;
    if (last_ == found->second.get()) last_ = nullptr;
    found->second->dirty_begin = found->second->dirty_end = 0;
    if (found->second->pins != 0) orphans_.push_back(std::move(found->second));
    tables_.erase(found);
  }
}

void TableCache::forget_all() {
  last_ = nullptr;
  tables_.clear();
}

std::vector<Table*> TableCache::dirty() const {
  std::vector<Table*> out;
  for (const auto& [offset, table] : tables_)
    if (table->dirty() || table->writing) out.push_back(table.get());
  std::ranges::sort(out, {}, &Table::offset);
  return out;
}

Task<IoStatus> TableCache::write(Table* table) {
  TablePin pin{table};
  while (pin->writing) co_await pin->changed.wait();
  if (!pin->dirty()) co_return IoStatus::kOk;
  const u64 begin = align_down(pin->dirty_begin, 512);
  const u64 end = std::min(align_up(pin->dirty_end, 512), table_bytes_);
  pin->dirty_begin = pin->dirty_end = 0;
  pin->writing = true;
  const std::span bytes = pin->memory.bytes().subspan(begin, end - begin);
  const IoStatus status = co_await file_.write_bytes(pin->offset + begin, bytes);
  pin->writing = false;
  if (status != IoStatus::kOk) pin->mark(begin, end - begin);
  pin->changed.wake_all();
  co_return status;
}

}  // namespace bulkhead::block::qcow2
