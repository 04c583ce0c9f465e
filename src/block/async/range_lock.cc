#include "block/async/range_lock.h"

namespace bulkhead::block {

RangeLock::Hold::Hold(RangeLock& lock, u64 offset, u64 length, Mode mode) : lock_{lock} {
  entry_.begin = offset;
  entry_.end = offset + length < offset ? ~u64{0} : offset + length;
  entry_.mode = mode;
}

void RangeLock::Hold::release() {
  if (std::exchange(listed_, false)) lock_.remove(entry_);
}

void RangeLock::add(Entry& entry) {
  entry.blockers = 0;
  for (Entry* before = first_; before != nullptr; before = before->next) entry.blockers += conflict(*before, entry);
  entry.previous = last_;
  entry.next = nullptr;
  (last_ == nullptr ? first_ : last_->next) = &entry;
  last_ = &entry;
}

void RangeLock::remove(Entry& entry) {
  for (Entry* after = entry.next; after != nullptr; after = after->next)
    if (conflict(entry, *after) && --after->blockers == 0) executor_.make_ready(after->waiter);
  (entry.previous == nullptr ? first_ : entry.previous->next) = entry.next;
  (entry.next == nullptr ? last_ : entry.next->previous) = entry.previous;
}

}  // namespace bulkhead::block
