// The store's contents: a tree that is copied in one step and shares its nodes with its copies until either changes.
// Not locked: whoever has it locks it, together with all its copies.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "device/xenbus/store/permissions.h"

namespace bulkhead::device::xenbus::store {

// Each change of the store has a number of its own; a node keeps those of the last ones that touched it.
struct Node {
  std::string value;
  Permissions permissions;
  std::map<std::string, std::shared_ptr<Node>, std::less<>> children;
  u64 generation = 0;       // it was made, or its value or permissions were changed
  u64 list_generation = 0;  // a child came or went
  u64 tree_generation = 0;  // any of these, here or below
};

// What each domain's nodes take.
struct Usage {
  i64 nodes = 0;
  i64 bytes = 0;
};
using Accounts = std::map<Domid, Usage>;

class Tree {
 public:
  Tree();  // the root alone, domain 0's

  const Node* find(std::string_view path) const;
  // The node at `rest` ("/a/b"; empty: itself) below one that need not be in a tree any more.
  static const Node* find_below(const Node& top, std::string_view rest);
  std::shared_ptr<const Node> share(std::string_view path) const;

  // The deepest node on the way to `path` that exists; `path` itself where it does.
  struct Nearest {
    const Node* node = nullptr;
    std::string_view path;     // its path, a part of the one asked for
    std::string_view missing;  // the path of the first node that does not exist; empty: all do
    unsigned missing_nodes = 0;
    std::size_t missing_bytes = 0;  // what they would take, without a value
  };
  Nearest nearest(std::string_view path) const;

  // The rest change the tree, stamp what they touch with `generation`, and keep `accounts` right.
  // Makes `path` and its missing parents. They have their parent's permissions, but a domain owns what it makes.
  void create(std::string_view path, Domid who, u64 generation, Accounts& accounts);
  // `path` exists.
  void set_value(std::string_view path, std::string_view value, u64 generation, Accounts& accounts);
  void set_permissions(std::string_view path, Permissions permissions, u64 generation, Accounts& accounts);
  // `path` exists and is not the root. Returns what was there.
  std::shared_ptr<const Node> remove(std::string_view path, u64 generation, Accounts& accounts);

 private:
  Node& own(std::string_view path, u64 generation);
  std::shared_ptr<Node> root_;
};

// What a node takes of its owner's memory limit.
std::size_t node_bytes(std::size_t name, std::size_t value, std::size_t permissions);

}  // namespace bulkhead::device::xenbus::store
