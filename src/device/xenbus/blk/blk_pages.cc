#include "device/xenbus/blk/blk_pages.h"

namespace bulkhead::device::xenbus {

std::byte* BlkPages::keep(u32 reference) {
  if (const auto found = by_reference_.find(reference); found != by_reference_.end()) {
    kept_.splice(kept_.begin(), kept_, found->second);
    counters_[BlkCounter::kPersistentHits].add();
    return kept_.front().page.data();
  }
  if (kept_.size() >= limit_) {
    if (kept_.empty() || kept_.back().last_request == request_) return nullptr;  // all are in use
    by_reference_.erase(kept_.back().reference);
    kept_.pop_back();
  }
  GrantedPage page{grants_, reference, PageAccess::kWrite};
  if (!page) return nullptr;  // perhaps granted for reading only
  kept_.push_front({reference, request_, std::move(page)});
  by_reference_.emplace(reference, kept_.begin());
  return kept_.front().page.data();
}

std::byte* BlkPages::hold(u32 reference, PageAccess access) {
  if (std::byte* const page = limit_ == 0 ? nullptr : keep(reference)) {
    kept_.front().last_request = request_;
    if (access == PageAccess::kWrite) written_.push_back(reference);
    return page;
  }
  for_request_.emplace_back(grants_, reference, access);
  return for_request_.back().data();
}

void BlkPages::release() {
  for (const u32 reference : written_) grants_.written(reference);
  written_.clear();
  for_request_.clear();
  ++request_;
}

}  // namespace bulkhead::device::xenbus
