// One request while it is in flight through a node. Used by Node only.
#pragma once
#include "block/node/node.h"

namespace bulkhead::block {

class Node::Tracked {
 public:
  Tracked(Node& node, RequestKind kind, u64 bytes)
      : node_{node}, kind_{kind}, bytes_{bytes}, begin_{node.executor_.now()} {
    node_.stats_.begin();
  }
  ~Tracked() {
    node_.stats_.end(kind_, bytes_, status_, node_.executor_.now() - begin_);
    if (node_.stats_.depth() == 0) node_.idle_.wake_all();
  }
  Tracked(const Tracked&) = delete;
  Tracked& operator=(const Tracked&) = delete;
  IoStatus end(IoStatus status) { return status_ = status; }

 private:
  Node& node_;
  const RequestKind kind_;
  const u64 bytes_;
  const Nanoseconds begin_;
  IoStatus status_ = IoStatus::kCancelled;
};

}  // namespace bulkhead::block
