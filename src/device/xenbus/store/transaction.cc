#include "device/xenbus/store/transaction.h"

#include <utility>

namespace bulkhead::device::xenbus::store {

Transaction::Seen& Transaction::look(std::string_view path) {
  auto found = seen_.find(path);
  if (found == seen_.end()) {
    found = seen_.emplace(std::string{path}, Seen{}).first;
    bytes_ += path.size() + sizeof(*found);
    if (const Node* node = base_.find(path))
      found->second = {true, false, false, node->generation, node->list_generation, node->tree_generation};
    else
      found->second.present = false;
  }
  return found->second;
}

void Transaction::note(std::string_view path, Interest interest) {
  const Tree::Nearest nearest = base_.nearest(path);
  Seen& seen = look(nearest.path);
  if (!nearest.missing.empty()) {
    // Whoever makes the first missing node decides whose the rest is.
    look(nearest.missing);
  } else {
    seen.list |= interest == Interest::kList;
    seen.tree |= interest == Interest::kTree;
  }
  look(tree.nearest(path).path);  // another one where the transaction itself has removed or made what is between
}

bool Transaction::conflicts(const Tree& now) const {
  for (const auto& [path, seen] : seen_) {
    const Node* node = now.find(path);
    if (seen.present != (node != nullptr)) return true;
    if (node == nullptr) continue;
    if (node->generation != seen.generation || (seen.list && node->list_generation != seen.list_generation) ||
        (seen.tree && node->tree_generation != seen.tree_generation))
      return true;
  }
  return false;
}

// A value that is written again needs no second place, so that a transaction cannot grow by it.
bool Transaction::replace_write(const Change& change) {
  const auto earlier = writes_.find(change.path);
  if (earlier == writes_.end()) return false;
  std::string& value = changes_[earlier->second].value;
  bytes_ += change.value.size();
  bytes_ -= value.size();
  value = change.value;
  return true;
}

void Transaction::change(Change change, Domid who, u64 generation) {
  apply(change, who, tree, accounts, generation);
  if (change.kind == Change::Kind::kWrite) {
    if (replace_write(change)) return;
    writes_.emplace(change.path, changes_.size());
  } else if (change.kind == Change::Kind::kRemove) {
    writes_.clear();
  }
  bytes_ +=
      sizeof(Change) + 2 * change.path.size() + change.value.size() + change.permissions.size() * sizeof(Permission);
  changes_.push_back(std::move(change));
}

Usage Transaction::growth(Domid who) const {
  const auto of = [who](const Accounts& all) {
    const auto found = all.find(who);
    return found == all.end() ? Usage{} : found->second;
  };
  const Usage after = of(accounts), before = of(base_accounts_);
  return {after.nodes - before.nodes, after.bytes - before.bytes};
}

}  // namespace bulkhead::device::xenbus::store
