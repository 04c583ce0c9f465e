#include "fs/server/inodes.h"

#include <algorithm>

namespace bulkhead::fs {

NodePtr NodeTable::find(u64 id) const {
  const Lock lock{mutex_};
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

NodePtr NodeTable::enter(Node fresh) {
  const Lock lock{mutex_};
  // A number of the host's cannot mean another file meanwhile: our descriptor keeps the file.
  if (const auto known = by_key_.find(fresh.key); known != by_key_.end()) {
    ++known->second->lookups;
    return by_id_.at(known->second->id);
  }
  if (by_id_.size() >= most_) {
    counts_.add(Count::kTooManyNodes);
    return nullptr;
  }
  auto node = std::make_shared<Node>(std::move(fresh));
  node->id = next_++;
  node->lookups = 1;
  by_id_.emplace(node->id, node);
  by_key_.emplace(node->key, node.get());
  counts_.add(Count::kNodes);
  return node;
}

void NodeTable::forget(u64 id, u64 lookups) {
  NodePtr last;  // closed outside of the lock
  const Lock lock{mutex_};
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) {
    counts_.add(Count::kUnknownNodes);
    return;
  }
  Node& node = *found->second;
  if (lookups > node.lookups) counts_.add(Count::kForgetOverflows);
  node.lookups -= std::min(lookups, node.lookups);
  if (node.lookups > 0) return;
  by_key_.erase(node.key);
  last = std::move(found->second);
  by_id_.erase(found);
  counts_.sub(Count::kNodes);
}

void NodeTable::clear() {
  const Lock lock{mutex_};
  counts_.sub(Count::kNodes, by_id_.size());
  by_key_.clear();
  by_id_.clear();
}

u64 NodeTable::guest_inode(u64 device, u64 inode) {
  const Lock lock{mutex_};
  auto found = std::ranges::find(devices_, device);
  if (found == devices_.end() && devices_.size() < 0xffff) found = devices_.insert(found, device);
  return inode ^ static_cast<u64>(found - devices_.begin()) << 48;
}

}  // namespace bulkhead::fs
