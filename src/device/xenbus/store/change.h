// One change of the store, as a transaction remembers it and as those who watch hear of it.
#pragma once
#include <memory>
#include <string>

#include "device/xenbus/store/tree.h"

namespace bulkhead::device::xenbus::store {

struct Change {
  enum class Kind : u8 { kWrite, kMakeDirectory, kRemove, kPermissions };
  Kind kind;
  std::string path;
  std::string value = {};        // kWrite
  Permissions permissions = {};  // kPermissions
};

struct Effect {
  std::string path;
  std::shared_ptr<const Node> removed = {};  // what was there, where it was removed
  Permissions before = {};                   // where the permissions were changed
};

// May be applied: the path exists where it has to, permissions and limits have been looked at.
Effect apply(const Change& change, Domid who, Tree& tree, Accounts& accounts, u64 generation);

}  // namespace bulkhead::device::xenbus::store
