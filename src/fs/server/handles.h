// Open files and folders, by the numbers that the guest was given. Bounded. Any thread.
#pragma once
#include <memory>
#include <unordered_map>

#include "fs/server/inodes.h"

namespace bulkhead::fs {

struct Handle {
  UniqueFd fd;  // none: our own root folder
  u64 node = 0;
  bool folder = false;
  Mutex position;  // of a folder being read
};
using HandlePtr = std::shared_ptr<Handle>;

class HandleTable {
 public:
  HandleTable(Counts& counts, u64 most) : counts_{counts}, most_{most} {}

  // 0: too many.
  u64 open(UniqueFd fd, u64 node, bool folder) {
    auto handle = std::make_shared<Handle>();
    handle->fd = std::move(fd);
    handle->node = node;
    handle->folder = folder;
    const Lock lock{mutex_};
    if (handles_.size() >= most_) {
      counts_.add(Count::kTooManyHandles);
      return 0;
    }
    handles_.emplace(next_, std::move(handle));
    counts_.add(Count::kHandles);
    return next_++;
  }
  // The handle, if it is open, of that node and of that kind.
  HandlePtr find(u64 number, u64 node, bool folder) const {
    const Lock lock{mutex_};
    const auto found = handles_.find(number);
    const bool right = found != handles_.end() && found->second->node == node && found->second->folder == folder;
    if (!right) counts_.add(Count::kUnknownHandles);
    return right ? found->second : nullptr;
  }
  bool close(u64 number, u64 node, bool folder) {
    const HandlePtr last = find(number, node, folder);  // closed outside of the lock
    if (last == nullptr) return false;
    const Lock lock{mutex_};
    if (handles_.erase(number) == 1) counts_.sub(Count::kHandles);
    return true;
  }
  void clear() {
    const Lock lock{mutex_};
    counts_.sub(Count::kHandles, handles_.size());
    handles_.clear();
  }

 private:
  Counts& counts_;
  const u64 most_;
  mutable Mutex mutex_;
  std::unordered_map<u64, HandlePtr> handles_ BH_GUARDED_BY(mutex_);
  u64 next_ BH_GUARDED_BY(mutex_) = 1;  // never used twice
};

}  // namespace bulkhead::fs
