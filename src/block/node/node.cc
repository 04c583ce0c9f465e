#include "block/node/node.h"

#include <algorithm>

#include "base/bits.h"
#include "block/node/tracked.h"

namespace bulkhead::block {

bool Node::fits(u64 offset, u64 length) const {
  return growable() ? length <= ~(u64{1} << 63) && offset <= ~(u64{1} << 63) - length
                    : range_within(offset, length, size());
}

Task<IoStatus> Node::read(u64 offset, Buffers data) {
  const u64 length = total_bytes(data);
  Tracked tracked{*this, RequestKind::kRead, length};
  if (!fits(offset, length)) co_return tracked.end(IoStatus::kOutOfRange);
  if (length == 0) co_return tracked.end(IoStatus::kOk);
  const NodeLimits limits = this->limits();
  IoStatus status;
  if (is_aligned(offset | length, limits.request_alignment) && length <= limits.max_transfer &&
      memory_aligned(data, limits.memory_alignment))
    status = co_await do_read(offset, data);
  else
    status = co_await read_pieces(offset, data, length, limits);
  co_return tracked.end(status);
}

Task<IoStatus> Node::write(u64 offset, Buffers data, WriteFlags flags) {
  const u64 length = total_bytes(data);
  Tracked tracked{*this, RequestKind::kWrite, length};
  if (read_only()) co_return tracked.end(IoStatus::kReadOnly);
  if (!fits(offset, length)) co_return tracked.end(IoStatus::kOutOfRange);
  const bool flush_after = has(flags, WriteFlags::kFua) && !supports_fua();
  if (flush_after) flags = WriteFlags::kNone;
  const NodeLimits limits = this->limits();
  IoStatus status = IoStatus::kOk;
  if (limits.request_alignment == 1 && length <= limits.max_transfer && memory_aligned(data, limits.memory_alignment)) {
    if (length != 0) status = co_await do_write(offset, data, flags);
  } else {
    status = co_await write_pieces(offset, data, length, flags, limits);
  }
  if (flush_after && status == IoStatus::kOk) status = co_await do_flush();
  co_return tracked.end(status);
}

Task<IoStatus> Node::flush() {
  Tracked tracked{*this, RequestKind::kFlush, 0};
  if (read_only()) co_return tracked.end(IoStatus::kOk);
  const IoStatus status = co_await do_flush();
  co_return tracked.end(status);
}

Task<IoStatus> Node::discard(u64 offset, u64 length) {
  Tracked tracked{*this, RequestKind::kDiscard, length};
  if (read_only()) co_return tracked.end(IoStatus::kReadOnly);
  if (!range_within(offset, length, size())) co_return tracked.end(IoStatus::kOutOfRange);
  const NodeLimits limits = this->limits();
  // The last piece of a disk whose size is not aligned may go as well: behind it there is nothing.
  const u64 end = offset + length == size() ? size() : align_down(offset + length, limits.discard_alignment);
  for (u64 at = align_up(offset, limits.discard_alignment); at < end;) {
    const u64 count = std::min(end - at, limits.max_range);
    const IoStatus status = co_await do_discard(at, count);
    if (status == IoStatus::kUnsupported) break;
    if (status != IoStatus::kOk) co_return tracked.end(status);
    at += count;
  }
  co_return tracked.end(IoStatus::kOk);
}

Task<IoStatus> Node::write_zeroes(u64 offset, u64 length, WriteFlags flags) {
  Tracked tracked{*this, RequestKind::kWriteZeroes, length};
  if (read_only()) co_return tracked.end(IoStatus::kReadOnly);
  if (!fits(offset, length)) co_return tracked.end(IoStatus::kOutOfRange);
  const NodeLimits limits = this->limits();
  IoStatus status = co_await zero_pieces(offset, length, flags, limits);
  if (status == IoStatus::kOk && has(flags, WriteFlags::kFua)) status = co_await do_flush();
  co_return tracked.end(status);
}

Task<IoResult<BlockStatus>> Node::block_status(u64 offset, u64 length) {
  if (length == 0 || !range_within(offset, 1, size())) co_return std::unexpected(IoStatus::kOutOfRange);
  length = std::min(length, size() - offset);
  IoResult<BlockStatus> found = co_await do_block_status(offset, length);
  if (found) found->length = std::clamp<u64>(found->length, 1, length);
  co_return found;
}

Task<IoStatus> Node::truncate(u64 size, Preallocation preallocation) {
  if (read_only()) co_return IoStatus::kReadOnly;
  if (size > ~(u64{1} << 63)) co_return IoStatus::kOutOfRange;
  co_return co_await do_truncate(size, preallocation);
}

Task<IoStatus> Node::read_bytes(u64 offset, std::span<std::byte> to) {
  const IoBuffer buffer{to.data(), to.size()};
  co_return co_await read(offset, Buffers{&buffer, 1});
}

Task<IoStatus> Node::write_bytes(u64 offset, std::span<const std::byte> from, WriteFlags flags) {
  const IoBuffer buffer{const_cast<std::byte*>(from.data()), from.size()};  // do_write only reads it
  co_return co_await write(offset, Buffers{&buffer, 1}, flags);
}

Task<IoStatus> Node::close() {
  if (std::exchange(closed_, true)) co_return IoStatus::kOk;
  co_return co_await do_close();
}

Task<IoStatus> close_graph(NodePtr root) {
  IoStatus first = co_await root->close();
  for (std::size_t i = 0; i < root->children().size(); ++i) {
    const IoStatus status = co_await close_graph(root->children()[i].node);
    if (first == IoStatus::kOk) first = status;
  }
  co_return first;
}

Task<IoStatus> Node::do_discard(u64, u64) { co_return IoStatus::kUnsupported; }
Task<IoStatus> Node::do_write_zeroes(u64, u64, WriteFlags) { co_return IoStatus::kUnsupported; }
Task<IoStatus> Node::do_truncate(u64, Preallocation) { co_return IoStatus::kUnsupported; }
Task<IoStatus> Node::do_close() { co_return IoStatus::kOk; }
Task<IoResult<BlockStatus>> Node::do_block_status(u64, u64 length) { co_return BlockStatus{.length = length}; }

Node* Node::child(ChildRole role) const {
  const auto found = std::ranges::find(children_, role, &Child::role);
  return found == children_.end() ? nullptr : found->node.get();
}

void Node::replace_child(const Node& before, NodePtr now) {
  const auto found = std::ranges::find_if(children_, [&](const Child& child) { return child.node.get() == &before; });
  BH_ASSERT(found != children_.end());
  found->node = std::move(now);
}

NodePtr Node::detach(ChildRole role) {
  const auto found = std::ranges::find(children_, role, &Child::role);
  if (found == children_.end()) return nullptr;
  NodePtr out = std::move(found->node);
  children_.erase(found);
  return out;
}

Task<Result<void>> Node::reopen(DiskAccess access) {
  if ((access == DiskAccess::kReadOnly) == read_only()) co_return Result<void>{};
  co_return fail("'{}' cannot be opened for writing while it is in use", name_);
}

Task<void> Node::wait_idle() {
  while (in_flight() != 0) co_await idle_.wait();
}

std::string Node::last_error() const {
  const std::lock_guard lock{error_mutex_};
  return error_;
}

void Node::note_error(std::string text) {
  const std::lock_guard lock{error_mutex_};
  error_ = std::move(text);
}

}  // namespace bulkhead::block
