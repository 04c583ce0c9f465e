// A transaction: its own copy of the tree, what it has looked at, and what it wants changed. It may be committed while
// all that it has looked at is as it was; what others change elsewhere does not matter to it.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "device/xenbus/store/change.h"
#include "device/xenbus/store/tree.h"

namespace bulkhead::device::xenbus::store {

class Transaction {
 public:
  Transaction(const Tree& base, const Accounts& base_accounts)
      : tree{base}, accounts{base_accounts}, base_{base}, base_accounts_{base_accounts} {}

  // What it depends on.
  enum class Interest : u8 { kNode, kList, kTree };
  void note(std::string_view path, Interest interest);
  bool conflicts(const Tree& now) const;

  // Changes its own copy, and remembers.
  void change(Change change, Domid who, u64 generation);
  const std::vector<Change>& changes() const { return changes_; }
  Usage growth(Domid who) const;

  std::size_t size() const { return seen_.size() > changes_.size() ? seen_.size() : changes_.size(); }
  u64 bytes() const { return bytes_; }

  Tree tree;
  Accounts accounts;

 private:
  struct Seen {
    bool present = true;
    bool list = false, tree = false;  // depends on these too
    u64 generation = 0, list_generation = 0, tree_generation = 0;
  };
  Seen& look(std::string_view path);
  bool replace_write(const Change& change);

  Tree base_;
  Accounts base_accounts_;
  std::map<std::string, Seen, std::less<>> seen_;
  std::vector<Change> changes_;
  std::map<std::string, std::size_t, std::less<>> writes_;  // where in changes_, since the last removal
  u64 bytes_ = 0;
};

}  // namespace bulkhead::device::xenbus::store
