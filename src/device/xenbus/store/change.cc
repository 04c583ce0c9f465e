#include "device/xenbus/store/change.h"

#include "base/assert.h"

namespace bulkhead::device::xenbus::store {

Effect apply(const Change& change, Domid who, Tree& tree, Accounts& accounts, u64 generation) {
  Effect effect{.path = change.path};
  switch (change.kind) {
    case Change::Kind::kWrite:
      tree.create(change.path, who, generation, accounts);
      tree.set_value(change.path, change.value, generation, accounts);
      break;
    case Change::Kind::kMakeDirectory:
      tree.create(change.path, who, generation, accounts);
      break;
    case Change::Kind::kRemove:
      effect.removed = tree.remove(change.path, generation, accounts);
      break;
    case Change::Kind::kPermissions: {
      const Node* node = tree.find(change.path);
      BH_ASSERT(node != nullptr);
      effect.before = node->permissions;
      tree.set_permissions(change.path, change.permissions, generation, accounts);
      break;
    }
  }
  return effect;
}

}  // namespace bulkhead::device::xenbus::store
