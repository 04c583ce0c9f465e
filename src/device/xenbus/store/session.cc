#include "device/xenbus/store/session.h"

#include <algorithm>
#include <utility>

#include "device/xenbus/store/path.h"

namespace bulkhead::device::xenbus::store {

using Interest = Transaction::Interest;

Session::~Session() {
  const Store::Locked state = store_.enter(kDomainZero);
  std::erase(state->sessions, this);
  transactions_.clear();  // under the lock: they share nodes with the store
}

u64 Session::transaction_bytes() const {
  u64 sum = 0;
  for (const auto& [id, transaction] : transactions_) sum += transaction.bytes();
  return sum;
}

// A domain that may not read around there does not learn either whether a node exists.
Reply<Session::Place> Session::locate(Store::State& state, u32 transaction, std::string_view path, Access wanted,
                                      Interest interest) {
  Transaction* in = nullptr;
  if (transaction != 0) {
    const auto found = transactions_.find(transaction);
    if (found == transactions_.end()) return std::unexpected{StoreError::kNoEntry};
    in = &found->second;
  }
  if (path.starts_with('@') && domain_ != kDomainZero) return std::unexpected{StoreError::kAccess};
  std::optional<std::string> whole = resolve_path(path, domain_);
  if (!whole) return std::unexpected{StoreError::kInvalid};
  if (in) {
    const bool full = in->size() >= store_.limits().transaction_nodes ||
                      transaction_bytes() + 2 * whole->size() > store_.limits().memory_bytes;
    if (full && domain_ != kDomainZero) return std::unexpected{StoreError::kNoSpace};
    in->note(*whole, interest);
  }
  Place place{state, in, std::move(*whole), nullptr};
  const Tree::Nearest nearest = place.tree().nearest(place.path);
  if (!permits(nearest.node->permissions, domain_, wanted)) return std::unexpected{StoreError::kAccess};
  if (nearest.missing.empty()) place.node = nearest.node;
  return place;
}

Reply<> Session::room_for(const Place& place, Domid owner, i64 nodes, i64 bytes) const {
  if (domain_ == kDomainZero || owner == kDomainZero) return {};
  const Limits& limits = store_.limits();
  const Usage& usage = place.accounts()[owner];
  const i64 remembered = static_cast<i64>(transaction_bytes()) + (place.transaction ? bytes : 0);
  if ((nodes > 0 && usage.nodes + nodes > limits.nodes) ||
      (bytes > 0 && usage.bytes + bytes + remembered > static_cast<i64>(limits.memory_bytes)))
    return std::unexpected{StoreError::kNoSpace};
  return {};
}

Reply<> Session::room_for_write(const Place& place, std::size_t value) const {
  if (domain_ != kDomainZero && value > store_.limits().value_bytes) return std::unexpected{StoreError::kNoSpace};
  if (place.node != nullptr)
    return room_for(place, place.node->permissions.front().domain, 0,
                    static_cast<i64>(value) - static_cast<i64>(place.node->value.size()));
  const Tree::Nearest nearest = place.tree().nearest(place.path);
  return room_for(place, domain_, nearest.missing_nodes, static_cast<i64>(nearest.missing_bytes + value));
}

void Session::make(const Place& place, Change change) {
  const u64 generation = ++place.state.generation;
  if (place.transaction) return place.transaction->change(std::move(change), domain_, generation);
  Store::tell(place.state, apply(change, domain_, place.state.tree, place.state.accounts, generation));
}

Reply<std::string> Session::read(u32 transaction, std::string_view path) {
  const Store::Locked state = store_.enter(domain_);
  const Reply<Place> place = locate(*state, transaction, path, Access::kRead);
  if (!place) return std::unexpected{place.error()};
  if (!place->node) return std::unexpected{StoreError::kNoEntry};
  return place->node->value;
}

Reply<Session::Listing> Session::list(u32 transaction, std::string_view path) {
  const Store::Locked state = store_.enter(domain_);
  const Reply<Place> place = locate(*state, transaction, path, Access::kRead, Interest::kList);
  if (!place) return std::unexpected{place.error()};
  if (!place->node) return std::unexpected{StoreError::kNoEntry};
  Listing listing{{}, std::max(place->node->generation, place->node->list_generation)};
  listing.names.reserve(place->node->children.size());
  for (const auto& [name, child] : place->node->children) listing.names.push_back(name);
  return listing;
}

Reply<> Session::write(u32 transaction, std::string_view path, std::string_view value, const Permissions* if_new) {
  const Store::Locked state = store_.enter(domain_);
  const Reply<Place> place = locate(*state, transaction, path, Access::kWrite);
  if (!place) return std::unexpected{place.error()};
  if (const Reply<> room = room_for_write(*place, value.size()); !room) return room;
  const bool sets_permissions = if_new && !place->node;
  make(*place, {Change::Kind::kWrite, place->path, std::string{value}});
  if (sets_permissions) make(*place, {Change::Kind::kPermissions, place->path, {}, *if_new});
  return {};
}

Reply<> Session::make_directory(u32 transaction, std::string_view path) {
  const Store::Locked state = store_.enter(domain_);
  const Reply<Place> place = locate(*state, transaction, path, Access::kWrite);
  if (!place) return std::unexpected{place.error()};
  if (place->node) return {};
  if (const Reply<> room = room_for_write(*place, 0); !room) return room;
  make(*place, {Change::Kind::kMakeDirectory, place->path});
  return {};
}

Reply<> Session::remove(u32 transaction, std::string_view path) {
  const Store::Locked state = store_.enter(domain_);
  if (path == "/") return std::unexpected{StoreError::kInvalid};
  const Reply<Place> place = locate(*state, transaction, path, Access::kWrite, Interest::kTree);
  if (!place) return std::unexpected{place.error()};
  if (place->node) {
    make(*place, {Change::Kind::kRemove, place->path});
    return {};
  }
  if (!place->tree().find(parent_of(place->path))) return std::unexpected{StoreError::kNoEntry};
  return {};
}

Reply<Permissions> Session::permissions(u32 transaction, std::string_view path) {
  const Store::Locked state = store_.enter(domain_);
  const Reply<Place> place = locate(*state, transaction, path, Access::kRead);
  if (!place) return std::unexpected{place.error()};
  if (!place->node) return std::unexpected{StoreError::kNoEntry};
  return place->node->permissions;
}

Reply<> Session::set_permissions(u32 transaction, std::string_view path, const Permissions& permissions) {
  const Store::Locked state = store_.enter(domain_);
  if (permissions.empty()) return std::unexpected{StoreError::kInvalid};
  if (domain_ != kDomainZero && permissions.size() > store_.limits().permissions)
    return std::unexpected{StoreError::kNoSpace};
  const Reply<Place> place = locate(*state, transaction, path, Access::kWrite);
  if (!place) return std::unexpected{place.error()};
  if (!place->node) return std::unexpected{StoreError::kNoEntry};
  const Permissions& before = place->node->permissions;
  if (domain_ != kDomainZero) {
    if (before.front().domain != domain_) return std::unexpected{StoreError::kAccess};
    if (permissions.front().domain != domain_) return std::unexpected{StoreError::kNotPermitted};
  }
  const i64 bytes = static_cast<i64>((permissions.size() - before.size()) * sizeof(Permission));
  if (const Reply<> room = room_for(*place, domain_, 0, bytes); !room) return room;
  make(*place, {Change::Kind::kPermissions, place->path, {}, permissions});
  return {};
}

Reply<u32> Session::begin() {
  const Store::Locked state = store_.enter(domain_);
  if (domain_ != kDomainZero && transactions_.size() >= store_.limits().transactions)
    return std::unexpected{StoreError::kNoSpace};
  do {
    ++last_transaction_;
  } while (last_transaction_ == 0 || transactions_.contains(last_transaction_));
  transactions_.try_emplace(last_transaction_, state->tree, state->accounts);
  return last_transaction_;
}

Reply<> Session::end(u32 transaction, bool commit) {
  const Store::Locked state = store_.enter(domain_);
  const auto ended = transactions_.extract(transaction);
  if (ended.empty()) return std::unexpected{StoreError::kNoEntry};
  if (!commit) return {};
  const Transaction& done = ended.mapped();
  if (done.conflicts(state->tree)) {
    store_.count(Count::kConflicts);
    return std::unexpected{StoreError::kAgain};
  }
  const Usage growth = done.growth(domain_);
  const Place place{*state, nullptr, {}, nullptr};
  if (const Reply<> room = room_for(place, domain_, growth.nodes, growth.bytes); !room) return room;
  std::vector<Effect> effects;
  for (const Change& change : done.changes())
    effects.push_back(apply(change, domain_, state->tree, state->accounts, ++state->generation));
  for (const Effect& effect : effects) Store::tell(*state, effect);
  store_.count(Count::kTransactions);
  return {};
}

}  // namespace bulkhead::device::xenbus::store
