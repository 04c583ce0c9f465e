// One connection to the store: what a domain asks for, in its own name. Its transactions and watches end with it.
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "device/xenbus/store/errors.h"
#include "device/xenbus/store/store.h"
#include "device/xenbus/store/transaction.h"

namespace bulkhead::device::xenbus::store {

// Any thread. Paths that do not begin with '/' are below the domain's home. `transaction` is 0 for none.
class Session {
 public:
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  Domid domain() const { return domain_; }

  Reply<std::string> read(u32 transaction, std::string_view path);
  struct Listing {
    std::vector<std::string> names;  // sorted
    u64 generation = 0;              // the same number: nothing has changed
  };
  Reply<Listing> list(u32 transaction, std::string_view path);
  // `if_new`: the permissions of a node that this makes, instead of those it would inherit; for domain 0.
  Reply<> write(u32 transaction, std::string_view path, std::string_view value, const Permissions* if_new = nullptr);
  Reply<> make_directory(u32 transaction, std::string_view path);
  Reply<> remove(u32 transaction, std::string_view path);
  Reply<Permissions> permissions(u32 transaction, std::string_view path);
  Reply<> set_permissions(u32 transaction, std::string_view path, const Permissions& permissions);

  Reply<u32> begin();
  Reply<> end(u32 transaction, bool commit);

  // Tells at once of `path`, then of every change at or below it that the domain may see.
  Reply<> watch(std::string_view path, std::string_view token);
  Reply<> unwatch(std::string_view path, std::string_view token);
  void reset();  // no watches and no transactions any more

 private:
  friend class Store;
  Session(Store& store, Domid domain, WatchSink& sink) : store_{store}, domain_{domain}, sink_{sink} {}

  // Where a request is to be answered: in the tree that it sees.
  struct Place {
    Store::State& state;
    Transaction* transaction;  // or null
    std::string path;
    const Node* node;  // null: not there
    Tree& tree() const { return transaction ? transaction->tree : state.tree; }
    Accounts& accounts() const { return transaction ? transaction->accounts : state.accounts; }
  };
  Reply<Place> locate(Store::State& state, u32 transaction, std::string_view path, Access wanted,
                      Transaction::Interest interest = Transaction::Interest::kNode);
  Reply<> room_for(const Place& place, Domid owner, i64 nodes, i64 bytes) const;
  Reply<> room_for_write(const Place& place, std::size_t value) const;
  void make(const Place& place, Change change);
  u64 transaction_bytes() const;
  void hear(const Store::State& state, const Effect& effect);
  void hear_special(std::string_view name);

  Store& store_;
  const Domid domain_;
  WatchSink& sink_;
  // The rest under the store's lock.
  std::map<u32, Transaction> transactions_;
  u32 last_transaction_ = 0;
  std::vector<WatchRef> watches_;
};

}  // namespace bulkhead::device::xenbus::store
