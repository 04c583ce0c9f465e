// Watches of a session: setting them, and who hears of what.
#include <algorithm>

#include "device/xenbus/store/path.h"
#include "device/xenbus/store/session.h"

namespace bulkhead::device::xenbus::store {

Reply<> Session::watch(std::string_view path, std::string_view token) {
  const Store::Locked state = store_.enter(domain_);
  const std::optional<std::string> whole = resolve_watch_path(path, domain_);
  if (!whole) return std::unexpected{StoreError::kInvalid};
  if (std::ranges::any_of(watches_, [&](const WatchRef& w) { return w->path == *whole && w->token == token; }))
    return std::unexpected{StoreError::kExists};
  if (domain_ != kDomainZero && watches_.size() >= store_.limits().watches) return std::unexpected{StoreError::kTooBig};
  watches_.push_back(std::make_shared<const Watch>(*whole, std::string{token}, whole->size() - path.size()));
  sink_.watch_event(watches_.back(), path);
  return {};
}

Reply<> Session::unwatch(std::string_view path, std::string_view token) {
  const Store::Locked state = store_.enter(domain_);
  const std::optional<std::string> whole = resolve_watch_path(path, domain_);
  if (!whole) return std::unexpected{StoreError::kInvalid};
  const auto found =
      std::ranges::find_if(watches_, [&](const WatchRef& w) { return w->path == *whole && w->token == token; });
  if (found == watches_.end()) return std::unexpected{StoreError::kNoEntry};
  sink_.watch_removed(*found);
  watches_.erase(found);
  return {};
}

void Session::reset() {
  const Store::Locked state = store_.enter(kDomainZero);
  for (const WatchRef& watch : watches_) sink_.watch_removed(watch);
  watches_.clear();
  transactions_.clear();
}

// A domain hears of nodes that it may read, or could before the change, or whose parent it may read: that a node has
// gone is to be heard too [xenstore "Watches"].
void Session::hear(const Store::State& state, const Effect& effect) {
  std::optional<bool> visible;
  const auto may_hear = [&] {
    if (!visible) {
      const auto readable = [this](const Node* node) {
        return node != nullptr && permits(node->permissions, domain_, Access::kRead);
      };
      visible = readable(state.tree.find(effect.path)) || readable(effect.removed.get()) ||
                (!effect.before.empty() && permits(effect.before, domain_, Access::kRead)) ||
                readable(state.tree.find(parent_of(effect.path)));
    }
    return *visible;
  };
  for (const WatchRef& watch : watches_) {
    if (at_or_below(effect.path, watch->path)) {
      if (may_hear()) sink_.watch_event(watch, watch->seen(effect.path));
    } else if (effect.removed && at_or_below(watch->path, effect.path)) {
      const Node* gone = Tree::find_below(*effect.removed, std::string_view{watch->path}.substr(effect.path.size()));
      if (gone && (permits(gone->permissions, domain_, Access::kRead) || may_hear()))
        sink_.watch_event(watch, watch->seen(watch->path));
    }
  }
}

// Which domains come and go is domain 0's business alone.
void Session::hear_special(std::string_view name) {
  if (domain_ != kDomainZero) return;
  for (const WatchRef& watch : watches_)
    if (watch->path == name) sink_.watch_event(watch, name);
}

}  // namespace bulkhead::device::xenbus::store
