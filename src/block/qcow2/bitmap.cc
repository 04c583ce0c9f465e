// Persistent bitmaps of what was written [qcow2 "Bitmaps"]. Those that record are in memory while the image is open for
// writing, and marked as in use on disk: after a crash they are known to be stale. At the end they go back to disk.
#include <algorithm>

#include "block/qcow2/qcow2_node.h"

namespace bulkhead::block::qcow2 {

namespace spec = bulkhead::spec::qcow2;

std::vector<std::byte> l1_bytes(const std::vector<u64>& l1);

namespace {

constexpr u64 kEntryBytes = 24, kMaxExtra = 1024, kMaxName = 1023;
constexpr u64 kMaxTracked = u64{1} << 33;  // bits in memory of one bitmap

std::vector<std::byte> serialize(const std::vector<Bitmap>& bitmaps) {
  std::vector<std::byte> out;
  for (const Bitmap& bitmap : bitmaps) {
    const std::size_t begin = out.size();
    out.resize(begin + kEntryBytes);
    std::byte* const at = &out[begin];
    store_be<u64>(at, bitmap.table_offset);
    store_be<u32>(at + 8, bitmap.table_size);
    store_be<u32>(at + 12, bitmap.flags);
    at[16] = std::byte{bitmap.type};
    at[17] = std::byte{bitmap.granularity_bits};
    store_be<u16>(at + 18, static_cast<u16>(bitmap.name.size()));
    store_be<u32>(at + 20, static_cast<u32>(bitmap.extra.size()));
    out.insert(out.end(), bitmap.extra.begin(), bitmap.extra.end());
    const auto name = std::as_bytes(std::span{bitmap.name});
    out.insert(out.end(), name.begin(), name.end());
    out.resize(align_up(out.size(), 8));
  }
  return out;
}

Result<Bitmap> parse(std::span<const std::byte> bytes, u64* used, u64 cluster) {
  if (bytes.size() < kEntryBytes) return fail("its bitmap directory is cut short");
  Bitmap out;
  out.table_offset = load_be<u64>(&bytes[0]);
  out.table_size = load_be<u32>(&bytes[8]);
  out.flags = load_be<u32>(&bytes[12]);
  out.type = static_cast<u8>(bytes[16]);
  out.granularity_bits = static_cast<u8>(bytes[17]);
  const u64 name = load_be<u16>(&bytes[18]), extra = load_be<u32>(&bytes[20]);
  if (name == 0 || name > kMaxName || extra > kMaxExtra || kEntryBytes + extra + name > bytes.size())
    return fail("an entry of its bitmap directory is of an impossible length");
  if (out.granularity_bits < 9 || out.granularity_bits > 31 || u64{out.table_size} * 8 > kMaxL1Bytes ||
      !is_aligned(out.table_offset, cluster))
    return fail("an entry of its bitmap directory cannot be");
  out.extra.assign(&bytes[kEntryBytes], &bytes[kEntryBytes] + extra);
  out.name.assign(reinterpret_cast<const char*>(&bytes[kEntryBytes] + extra), name);
  *used = std::min<u64>(align_up(kEntryBytes + extra + name, 8), bytes.size());
  return out;
}

}  // namespace

u64 Qcow2Node::bits_of(const Bitmap& bitmap) const {
  return align_up(size(), u64{1} << bitmap.granularity_bits) >> bitmap.granularity_bits;
}

Task<Result<void>> Qcow2Node::load_bitmaps() {
  if (!header_.bitmaps) co_return Result<void>{};
  std::vector<std::byte> bytes(header_.bitmaps->directory_size);
  const IoStatus status = co_await file().read_bytes(header_.bitmaps->directory_offset, bytes);
  if (status != IoStatus::kOk) co_return fail("its bitmap directory: {}", text_of(status));
  std::span<const std::byte> rest = bytes;
  for (u32 i = 0; i < header_.bitmaps->count; ++i) {
    u64 used = 0;
    BH_CO_ASSIGN(Bitmap one, parse(rest, &used, layout_.cluster()));
    const u64 per_entry = layout_.cluster() * 8, wanted = (bits_of(one) + per_entry - 1) / per_entry;
    if (one.table_size != wanted && !one.in_use())
      co_return fail("its bitmap '{}' has a table of {} entries, {} are needed", one.name, one.table_size, wanted);
    rest = rest.subspan(used);
    bitmaps_.push_back(std::move(one));
  }
  co_return Result<void>{};
}

// A new directory, then the header that names it, then the old directory's end.
Task<Result<void>> Qcow2Node::store_bitmaps(std::vector<Bitmap> now) {
  const std::vector<std::byte> bytes = serialize(now);
  const std::optional<BitmapsExtension> before = header_.bitmaps;
  std::optional<BitmapsExtension> after;
  IoStatus status = IoStatus::kOk;
  if (!now.empty()) {
    auto stored = co_await store_table(&bytes);
    if (stored)
      after = BitmapsExtension{static_cast<u32>(now.size()), bytes.size(), *stored};
    else
      status = stored.error();
  }
  if (status == IoStatus::kOk) {
    header_.bitmaps = after;
    header_.autoclear =
        after ? header_.autoclear | spec::kBitmapsConsistent : header_.autoclear & ~u64{spec::kBitmapsConsistent};
    status = co_await write_header();
  }
  if (status == IoStatus::kOk) status = co_await sync();
  if (status == IoStatus::kOk) bitmaps_ = std::move(now);
  if (status == IoStatus::kOk && before) status = co_await free_now(before->directory_offset, before->directory_size);
  if (status == IoStatus::kOk) co_return Result<void>{};
  co_return fail("cannot write the bitmaps of '{}': {}", name(), text_of(status));
}

Task<Result<std::vector<bool>>> Qcow2Node::load_bits(const Bitmap* bitmap) {
  std::vector<bool> out(bits_of(*bitmap));
  auto table = co_await load_l1(bitmap->table_offset, bitmap->table_size);
  if (!table) co_return fail("the table of bitmap '{}': {}", bitmap->name, text_of(table.error()));
  AlignedMemory memory{layout_.cluster()};
  if (!memory) co_return fail("no memory for bitmap '{}'", bitmap->name);
  const u64 per_entry = layout_.cluster() * 8;
  for (u64 i = 0; i < table->size() && i * per_entry < out.size(); ++i) {
    const u64 offset = (*table)[i] & spec::kOffsetMask, end = std::min<u64>(out.size(), (i + 1) * per_entry);
    if (offset == 0) {
      if (((*table)[i] & spec::kBitmapAllOnes) != 0)
        std::fill(out.begin() + static_cast<std::ptrdiff_t>(i * per_entry),
                  out.begin() + static_cast<std::ptrdiff_t>(end), true);
      continue;
    }
    const IoStatus status = co_await file().read_bytes(offset, memory.bytes());
    if (status != IoStatus::kOk) co_return fail("bitmap '{}': {}", bitmap->name, text_of(status));
    for (u64 k = i * per_entry; k < end; ++k)
      out[k] = bit(static_cast<u8>(memory.data()[(k - i * per_entry) / 8]), static_cast<unsigned>(k % 8));
  }
  co_return out;
}

// In new clusters; *bitmap then names its new table.
Task<Result<void>> Qcow2Node::store_bits(Bitmap* bitmap, const std::vector<bool>* bits) {
  const u64 per_entry = layout_.cluster() * 8;
  std::vector<u64> table((bits->size() + per_entry - 1) / per_entry);
  std::vector<std::byte> bytes(layout_.cluster());
  for (u64 i = 0; i < table.size(); ++i) {
    std::ranges::fill(bytes, std::byte{0});
    bool any = false;
    for (u64 k = i * per_entry; k < std::min<u64>(bits->size(), (i + 1) * per_entry); ++k) {
      if (!(*bits)[k]) continue;
      bytes[(k - i * per_entry) / 8] |= std::byte{static_cast<u8>(1U << (k % 8))};
      any = true;
    }
    if (!any) continue;
    auto stored = co_await store_table(&bytes);
    if (!stored) co_return fail("cannot write bitmap '{}': {}", bitmap->name, text_of(stored.error()));
    table[i] = *stored;
  }
  const std::vector<std::byte> raw = l1_bytes(table);
  bitmap->table_offset = 0;
  bitmap->table_size = static_cast<u32>(table.size());
  if (raw.empty()) co_return Result<void>{};
  auto stored = co_await store_table(&raw);
  if (!stored) co_return fail("cannot write bitmap '{}': {}", bitmap->name, text_of(stored.error()));
  bitmap->table_offset = *stored;
  co_return Result<void>{};
}

Task<Result<void>> Qcow2Node::free_bits(const Bitmap* bitmap) {
  auto table = co_await load_l1(bitmap->table_offset, bitmap->table_size);
  if (!table) co_return fail("the table of bitmap '{}': {}", bitmap->name, text_of(table.error()));
  IoStatus status = IoStatus::kOk;
  for (const u64 entry : *table)
    if (status == IoStatus::kOk && (entry & spec::kOffsetMask) != 0)
      status = co_await free_now(entry & spec::kOffsetMask, layout_.cluster());
  if (status == IoStatus::kOk) status = co_await free_now(bitmap->table_offset, u64{bitmap->table_size} * 8);
  if (status != IoStatus::kOk) co_return fail("freeing bitmap '{}': {}", bitmap->name, text_of(status));
  co_return Result<void>{};
}

// For another size of the disk: what they hold, while the image says that they are in use; so they are stale at worst.
Task<Result<void>> Qcow2Node::begin_resizing(std::map<std::string, std::vector<bool>>* held) {
  if (bitmaps_.empty()) co_return Result<void>{};
  std::vector<Bitmap> now = bitmaps_;
  for (Bitmap& bitmap : now) {
    if (bitmap.in_use()) continue;
    BH_CO_ASSIGN((*held)[bitmap.name], co_await load_bits(&bitmap));
    bitmap.flags |= spec::kBitmapInUse;
  }
  co_return co_await store_bitmaps(std::move(now));
}

// What is new of the disk was not written.
Task<Result<void>> Qcow2Node::end_resizing(std::map<std::string, std::vector<bool>>* held) {
  if (bitmaps_.empty()) co_return Result<void>{};
  std::vector<Bitmap> before, now = bitmaps_;
  for (Bitmap& bitmap : now) {
    const auto live = tracked_.find(bitmap.name);
    const auto kept = held->find(bitmap.name);
    if (live != tracked_.end()) live->second.resize(bits_of(bitmap));
    if (kept == held->end()) continue;
    kept->second.resize(bits_of(bitmap));
    before.push_back(bitmap);
    BH_CO_TRY(co_await store_bits(&bitmap, &kept->second));
    bitmap.flags &= ~u32{spec::kBitmapInUse};
  }
  BH_CO_TRY(co_await store_bitmaps(std::move(now)));
  for (const Bitmap& bitmap : before) BH_CO_TRY(co_await free_bits(&bitmap));
  co_return Result<void>{};
}

// All that record are taken into memory, and marked on disk so that nobody takes them for whole before we are done.
Task<Result<void>> Qcow2Node::begin_tracking() {
  std::vector<Bitmap> now = bitmaps_;
  bool changed = false;
  for (Bitmap& bitmap : now) {
    if (bitmap.in_use() || (bitmap.flags & spec::kBitmapAuto) == 0 || bits_of(bitmap) > kMaxTracked) continue;
    BH_CO_ASSIGN(tracked_[bitmap.name], co_await load_bits(&bitmap));
    bitmap.flags |= spec::kBitmapInUse;
    changed = true;
  }
  // One that is too large to record cannot be kept: it stays, marked as stale.
  for (Bitmap& bitmap : now)
    if ((bitmap.flags & spec::kBitmapAuto) != 0 && !bitmap.in_use()) {
      bitmap.flags |= spec::kBitmapInUse;
      changed = true;
    }
  if (!changed) co_return Result<void>{};
  co_return co_await store_bitmaps(std::move(now));
}

Task<Result<void>> Qcow2Node::end_tracking() {
  if (tracked_.empty()) co_return Result<void>{};
  std::vector<Bitmap> before, now = bitmaps_;
  for (Bitmap& bitmap : now) {
    const auto found = tracked_.find(bitmap.name);
    if (found == tracked_.end()) continue;
    before.push_back(bitmap);
    BH_CO_TRY(co_await store_bits(&bitmap, &found->second));
    bitmap.flags &= ~u32{spec::kBitmapInUse};
  }
  tracked_.clear();
  BH_CO_TRY(co_await store_bitmaps(std::move(now)));
  for (const Bitmap& bitmap : before) BH_CO_TRY(co_await free_bits(&bitmap));
  co_return Result<void>{};
}

void Qcow2Node::track(u64 offset, u64 length) {
  if (tracked_.empty()) return;
  for (const Bitmap& bitmap : bitmaps_) {
    const auto found = tracked_.find(bitmap.name);
    if (found == tracked_.end()) continue;
    const u64 end = std::min(offset + length, size());
    for (u64 k = offset >> bitmap.granularity_bits; k << bitmap.granularity_bits < end; ++k) found->second[k] = true;
  }
}

Result<void> Qcow2Node::judge_recording(const std::string& bitmap_name) const {
  if (tracked_.contains(bitmap_name)) return {};
  const auto found = std::ranges::find(bitmaps_, bitmap_name, &Bitmap::name);
  if (found == bitmaps_.end()) return fail("image '{}' has no bitmap '{}'", name(), bitmap_name);
  return fail("bitmap '{}' of '{}' does not record: it is disabled, or stale", bitmap_name, name());
}

u64 Qcow2Node::recording_grain(const std::string& bitmap_name) const {
  return u64{1} << std::ranges::find(bitmaps_, bitmap_name, &Bitmap::name)->granularity_bits;
}

Result<std::vector<bool>> Qcow2Node::take_recorded(const std::string& bitmap_name) {
  BH_TRY(judge_recording(bitmap_name));
  std::vector<bool>& live = tracked_[bitmap_name];
  std::vector<bool> none(live.size());
  return std::exchange(live, std::move(none));
}

void Qcow2Node::give_back_recorded(const std::string& bitmap_name, const std::vector<bool>& bits) {
  const auto found = tracked_.find(bitmap_name);
  if (found == tracked_.end()) return;
  for (std::size_t i = 0; i < std::min(bits.size(), found->second.size()); ++i)
    if (bits[i]) found->second[i] = true;
}

Task<Result<void>> Qcow2Node::add_bitmap(std::string bitmap_name, u32 granularity, bool enabled) {
  if (read_only() || header_.version < 3)
    co_return fail("image '{}' is read-only, or of version 2, which has no bitmaps", name());
  if (bitmap_name.empty() || bitmap_name.size() > kMaxName)
    co_return fail("a bitmap's name has 1 to {} bytes", kMaxName);
  if (granularity < 512 || (granularity & (granularity - 1)) != 0 || granularity > (u32{1} << 31))
    co_return fail("a bitmap's granularity is a power of two from 512 to 2G");
  if (std::ranges::find(bitmaps_, bitmap_name, &Bitmap::name) != bitmaps_.end())
    co_return fail("image '{}' has a bitmap '{}' already", name(), bitmap_name);
  if (bitmaps_.size() >= kMaxBitmaps) co_return fail("image '{}' has too many bitmaps", name());
  Bitmap bitmap;
  bitmap.name = std::move(bitmap_name);
  bitmap.granularity_bits = static_cast<u8>(__builtin_ctz(granularity));
  bitmap.flags = enabled ? spec::kBitmapAuto : 0;
  if (bits_of(bitmap) > kMaxTracked) co_return fail("this granularity is too fine for a disk of {} bytes", size());
  const std::vector<bool> none(bits_of(bitmap));
  BH_CO_TRY(co_await store_bits(&bitmap, &none));
  if (enabled) {
    tracked_[bitmap.name] = none;
    bitmap.flags |= spec::kBitmapInUse;
  }
  std::vector<Bitmap> now = bitmaps_;
  now.push_back(std::move(bitmap));
  co_return co_await store_bitmaps(std::move(now));
}

Task<Result<void>> Qcow2Node::change_bitmap(std::string bitmap_name,
                                            std::function<void(Bitmap*, std::vector<bool>*)> change) {
  std::vector<Bitmap> now = bitmaps_;
  const auto found = std::ranges::find(now, bitmap_name, &Bitmap::name);
  if (found == now.end()) co_return fail("image '{}' has no bitmap '{}'", name(), bitmap_name);
  if (read_only()) co_return fail("image '{}' is read-only", name());
  const auto live = tracked_.find(bitmap_name);
  if (live == tracked_.end() && found->in_use())
    co_return fail("bitmap '{}' is stale: it was in use when a program ended; remove it", bitmap_name);
  std::vector<bool> bits;
  if (live != tracked_.end()) {
    bits = live->second;
  } else {
    BH_CO_ASSIGN(bits, co_await load_bits(&*found));
  }
  const Bitmap before = *found;
  change(&*found, &bits);
  BH_CO_TRY(co_await store_bits(&*found, &bits));
  const bool records = (found->flags & spec::kBitmapAuto) != 0;
  found->flags = (found->flags & ~u32{spec::kBitmapInUse}) | (records ? u32{spec::kBitmapInUse} : 0);
  BH_CO_TRY(co_await store_bitmaps(std::move(now)));
  tracked_.erase(bitmap_name);
  if (records) tracked_[bitmap_name] = std::move(bits);
  co_return co_await free_bits(&before);
}

Task<Result<void>> Qcow2Node::clear_bitmap(std::string bitmap_name) {
  return change_bitmap(std::move(bitmap_name),
                       [](Bitmap*, std::vector<bool>* bits) { bits->assign(bits->size(), false); });
}

Task<Result<void>> Qcow2Node::enable_bitmap(std::string bitmap_name, bool enabled) {
  return change_bitmap(std::move(bitmap_name), [enabled](Bitmap* bitmap, std::vector<bool>*) {
    bitmap->flags = (bitmap->flags & ~u32{spec::kBitmapAuto}) | (enabled ? u32{spec::kBitmapAuto} : 0);
  });
}

Task<Result<void>> Qcow2Node::merge_bitmap(std::string target, std::vector<bool> more, u32 granularity_bits) {
  return change_bitmap(std::move(target),
                       [this, more = std::move(more), granularity_bits](Bitmap* bitmap, std::vector<bool>* bits) {
                         for (u64 i = 0; i < more.size(); ++i) {
                           if (!more[i]) continue;
                           const u64 end = std::min((i + 1) << granularity_bits, size());
                           for (u64 k = (i << granularity_bits) >> bitmap->granularity_bits;
                                k << bitmap->granularity_bits < end && k < bits->size(); ++k)
                             (*bits)[k] = true;
                         }
                       });
}

Task<Result<void>> Qcow2Node::remove_bitmap(std::string bitmap_name) {
  std::vector<Bitmap> rest = bitmaps_;
  const auto found = std::ranges::find(rest, bitmap_name, &Bitmap::name);
  if (found == rest.end()) co_return fail("image '{}' has no bitmap '{}'", name(), bitmap_name);
  if (read_only()) co_return fail("image '{}' is read-only", name());
  const Bitmap gone = *found;
  rest.erase(found);
  tracked_.erase(bitmap_name);
  BH_CO_TRY(co_await store_bitmaps(std::move(rest)));
  co_return co_await free_bits(&gone);
}

Task<Result<std::vector<bool>>> Qcow2Node::read_bitmap(std::string bitmap_name) {
  const auto found = std::ranges::find(bitmaps_, bitmap_name, &Bitmap::name);
  if (found == bitmaps_.end()) co_return fail("image '{}' has no bitmap '{}'", name(), bitmap_name);
  const auto live = tracked_.find(bitmap_name);
  if (live != tracked_.end()) co_return live->second;
  if (found->in_use()) co_return fail("bitmap '{}' is stale: it was in use when a program ended", bitmap_name);
  co_return co_await load_bits(&*found);
}

}  // namespace bulkhead::block::qcow2
