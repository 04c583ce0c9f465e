#include "device/xenbus/blk/blk_pages.h"

#include <algorithm>

namespace bulkhead::device::xenbus {

bool BlkPages::keep(u32 reference) {
  if (const auto found = by_reference_.find(reference); found != by_reference_.end()) {
    kept_.splice(kept_.begin(), kept_, found->second);
    counters_[BlkCounter::kPersistentHits].add();
    return true;
  }
  if (kept_.size() >= limit_) {
    const auto unused = std::find_if(kept_.rbegin(), kept_.rend(), [](const Kept& one) { return one.users == 0; });
    if (unused == kept_.rend()) return false;
    by_reference_.erase(unused->reference);
    kept_.erase(std::next(unused).base());
  }
  GrantedPage page{grants_, reference, PageAccess::kWrite};
  if (!page) return false;  // perhaps granted for reading only
  kept_.push_front({reference, 0, std::move(page)});
  by_reference_.emplace(reference, kept_.begin());
  return true;
}

std::byte* BlkPages::Held::hold(u32 reference, PageAccess access) {
  if (pages_.limit_ != 0 && pages_.keep(reference)) {
    const auto front = pages_.kept_.begin();
    ++front->users;
    kept_.emplace_back(front, access);
    return front->page.data();
  }
  others_.emplace_back(pages_.grants_, reference, access);
  return others_.back().data();
}

void BlkPages::Held::release() {
  for (const auto& [kept, access] : kept_) {
    --kept->users;
    if (access == PageAccess::kWrite) pages_.grants_.written(kept->reference);
  }
  kept_.clear();
  others_.clear();
}

}  // namespace bulkhead::device::xenbus
