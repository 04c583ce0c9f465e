// The files that the guest knows: an O_PATH descriptor each, by number and by what they are on the host. Bounded.
// Any thread. A node that is in use outlives its being forgotten.
#pragma once
#include <sys/stat.h>

#include <memory>
#include <unordered_map>
#include <vector>

#include "base/fd.h"
#include "base/sync.h"
#include "fs/server/counters.h"

namespace bulkhead::fs {

struct NodeKey {
  u64 device = 0, inode = 0, mount = 0;
  u32 share = 0;
  bool operator==(const NodeKey&) const = default;
};

struct Node {
  UniqueFd fd;  // O_PATH; none for the root
  NodeKey key;
  u64 id = 0;
  mode_t type = 0;  // S_IFMT's part
  bool read_only = false, share_root = false;
  u64 lookups = 0;  // the table's
};
using NodePtr = std::shared_ptr<Node>;

class NodeTable {
 public:
  NodeTable(Counts& counts, u64 most) : counts_{counts}, most_{most} {}

  NodePtr find(u64 id) const;
  // One more lookup of what `fresh` is: the node that is there already, or `fresh` with a number. Null: too many.
  NodePtr enter(Node fresh);
  void forget(u64 id, u64 lookups);
  void clear();
  // What the guest is told for a file's number: unique in all shares. The first device keeps its numbers.
  u64 guest_inode(u64 device, u64 inode);

 private:
  struct Hash {
    std::size_t operator()(const NodeKey& key) const {
      return std::hash<u64>{}(key.inode * 0x9e37'79b9'7f4a'7c15 ^ key.device << 32 ^ key.mount << 8 ^ key.share);
    }
  };
  Counts& counts_;
  const u64 most_;
  mutable Mutex mutex_;
  std::unordered_map<u64, NodePtr> by_id_ BH_GUARDED_BY(mutex_);
  std::unordered_map<NodeKey, Node*, Hash> by_key_ BH_GUARDED_BY(mutex_);
  std::vector<u64> devices_ BH_GUARDED_BY(mutex_);
  u64 next_ BH_GUARDED_BY(mutex_) = 2;  // 1 is the root [linux fuse.h FUSE_ROOT_ID]; never used twice
};

}  // namespace bulkhead::fs
