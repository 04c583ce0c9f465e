#include "block/job/filter.h"

namespace bulkhead::block {

JobFilter::JobFilter(NodePtr below, ChangeHook& hook)
    : Node{below->executor(), below->name(), below->read_only() ? DiskAccess::kReadOnly : DiskAccess::kReadWrite},
      below_{*below},
      hook_{hook} {
  set_size(below->size());
  add_child(ChildRole::kFiltered, std::move(below));
}

// Alignment is the affair of who is below: what a job sees is what the guest asked.
NodeLimits JobFilter::limits() const {
  NodeLimits limits = below_.limits();
  limits.request_alignment = limits.memory_alignment = 1;
  return limits;
}

Task<IoStatus> JobFilter::forward(const Change* change) {
  if (change->kind == RequestKind::kWrite) return below_.write(change->offset, change->data, change->flags);
  if (change->kind == RequestKind::kDiscard) return below_.discard(change->offset, change->length);
  return below_.write_zeroes(change->offset, change->length, change->flags);
}

Task<IoStatus> JobFilter::do_write(u64 offset, Buffers data, WriteFlags flags) {
  Change change{RequestKind::kWrite, offset, total_bytes(data), data, flags};
  co_return co_await hook_.change(&change);
}

Task<IoStatus> JobFilter::do_discard(u64 offset, u64 length) {
  Change change{RequestKind::kDiscard, offset, length};
  co_return co_await hook_.change(&change);
}

Task<IoStatus> JobFilter::do_write_zeroes(u64 offset, u64 length, WriteFlags flags) {
  Change change{RequestKind::kWriteZeroes, offset, length, {}, flags};
  co_return co_await hook_.change(&change);
}

}  // namespace bulkhead::block
