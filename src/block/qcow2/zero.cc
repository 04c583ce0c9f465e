// Zeroes and discards: changes of entries, where whole clusters (or subclusters) are concerned.
#include <algorithm>

#include "block/qcow2/qcow2_node.h"

namespace bulkhead::block::qcow2 {

namespace spec = bulkhead::spec::qcow2;

namespace {
constexpr std::size_t kMostReleased = 8192;  // runs that wait for a flush
constexpr u64 kAll = 0xffffffff;
}  // namespace

// What `entry` becomes when the subclusters of `mask` are zeroed.
L2Entry Qcow2Node::zeroed(const L2Entry& entry, Zeroing how, u32 mask) const {
  const bool deep = backing() != nullptr;
  const bool drop = (how.discard || how.may_unmap || !Layout::copied(entry)) && !layout_.external;
  const bool nothing = Layout::compressed(entry) || !layout_.has_host(entry);
  if (!layout_.extended) {
    if (!deep && nothing && !Layout::compressed(entry)) return {};
    if ((how.discard || !layout_.has_zero_flag) && !deep && !layout_.external) return {};
    if (nothing || drop) return {spec::kZero, 0};
    return {entry.entry | spec::kZero, 0};
  }
  if (mask == kAll && (nothing || drop)) return !deep ? L2Entry{} : L2Entry{0, kAll << 32};
  L2Entry now = entry;
  now.bitmap = (now.bitmap & ~u64{mask}) | (u64{mask} << 32);
  return now;
}

// Under the range's exclusive hold; whole subclusters, within one slice.
Task<IoStatus> Qcow2Node::zero_in_slice(u64 offset, u64 length, Zeroing how) {
  if ((l1_[layout_.l1_index(offset)] & spec::kOffsetMask) == 0 && backing() == nullptr && !layout_.external)
    co_return IoStatus::kOk;
  auto writable = co_await writable_slice(offset);
  if (!writable) co_return writable.error();
  const TablePin slice = std::move(*writable);
  const u64 cluster = layout_.cluster(), sub = layout_.subcluster();
  for (u64 at = offset; at < offset + length;) {
    const u64 begin = align_down(at, cluster), until = std::min(offset + length, begin + cluster);
    const L2Entry before = layout_.load(slice->bytes(), layout_.in_slice(begin));
    if (layout_.kind(before, 0) == ExtentKind::kBad) co_return corrupt("an entry contradicts itself");
    u32 mask = static_cast<u32>(kAll);
    if (layout_.extended && (at != begin || until != begin + cluster)) {
      if (Layout::compressed(before)) co_return IoStatus::kUnsupported;
      const auto first = static_cast<unsigned>((at - begin) / sub),
                 last = static_cast<unsigned>((until - 1 - begin) / sub);
      mask = static_cast<u32>(bits(~u64{0}, last - first, 0) << first);
    }
    replace(*slice, begin, before, zeroed(before, how, mask));
    at = until;
  }
  co_return IoStatus::kOk;
}

Task<IoStatus> Qcow2Node::zero_clusters(u64 offset, u64 length, Zeroing how) {
  const u64 cluster = layout_.cluster(), end = offset + length;
  for (u64 at = offset; at < end;) {
    const u64 until = std::min(end, align_down(at, layout_.slice_span()) + layout_.slice_span());
    RangeLock::Hold hold{locks_, align_down(at, cluster), align_up(until, cluster) - align_down(at, cluster),
                         RangeLock::Mode::kExclusive};
    co_await hold.acquire();
    BH_IO_TRY(co_await before_change());
    if (!how.unchanged) track(at, until - at);
    BH_IO_TRY(co_await zero_in_slice(at, until - at, how));
    at = until;
  }
  if (released_.size() > kMostReleased) co_return co_await write_tables(false);
  co_return IoStatus::kOk;
}

Task<IoStatus> Qcow2Node::do_discard(u64 offset, u64 length) {
  // Where zeroes cannot be said, what the backing image holds must not come back.
  if (!layout_.has_zero_flag && backing() != nullptr) co_return IoStatus::kUnsupported;
  const u64 sub = layout_.subcluster(), end = offset + length == size() ? align_up(size(), sub) : offset + length;
  const IoStatus status = co_await zero_clusters(offset, end - offset, {true, true});
  if (status != IoStatus::kOk || !layout_.external) co_return status;
  co_return co_await data().discard(offset, length);
}

Task<IoStatus> Qcow2Node::do_write_zeroes(u64 offset, u64 length, WriteFlags flags) {
  if (!layout_.has_zero_flag && backing() != nullptr) co_return IoStatus::kUnsupported;
  if (layout_.external && (header_.autoclear & spec::kRawExternalData) != 0) co_return IoStatus::kUnsupported;
  const u64 sub = layout_.subcluster(), end = offset + length;
  const u64 first = align_up(offset, sub), last = end == size() ? align_up(end, sub) : align_down(end, sub);
  const Zeroing how{false, has(flags, WriteFlags::kMayUnmap), has(flags, WriteFlags::kUnchanged)};
  if (first >= last) {
    if (has(flags, WriteFlags::kNoFallback)) co_return IoStatus::kUnsupported;
    co_return co_await zero_part(offset, length);
  }
  if (has(flags, WriteFlags::kNoFallback) && (first != offset || last < end)) co_return IoStatus::kUnsupported;
  if (first > offset) BH_IO_TRY(co_await zero_part(offset, first - offset));
  if (last < end) BH_IO_TRY(co_await zero_part(last, end - last));
  co_return co_await zero_clusters(first, last - first, how);
}

// Less than a cluster: written, unless it reads as zeroes already.
Task<IoStatus> Qcow2Node::zero_part(u64 offset, u64 length) {
  for (u64 at = offset; at < offset + length;) {
    auto extent = co_await map(at, offset + length - at);
    if (!extent) co_return extent.error();
    const bool zero = extent->kind == ExtentKind::kZero ||
                      (extent->kind == ExtentKind::kUnallocated && (backing() == nullptr || at >= backing()->size()));
    if (!zero) BH_IO_TRY(co_await zero_by_writing(at, extent->length));
    at += extent->length;
  }
  co_return IoStatus::kOk;
}

}  // namespace bulkhead::block::qcow2
