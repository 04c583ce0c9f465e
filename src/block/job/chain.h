// Images of a disk's chain: found by file, put elsewhere; and targets of jobs. Executor's thread, but make_target().
#pragma once
#include "block/job/job_types.h"
#include "block/qcow2/qcow2_node.h"

namespace bulkhead::block {

// The image below `root` that is in the file `path`; with an empty path the next one. Errors: there is none.
Result<Node*> find_below(Node* root, const std::string& path);
// The image of the chain at `root` that stands on `node`; not null if `node` is below `root`.
Node* overlay_of(Node* root, const Node* node);
// Takes `base` from the image above it in the chain at `root`.
void detach_backing(Node* root, const Node* base);
// The backing image of `from`, which `to` stands on as well from now on. Not null.
const Node* share_backing(Node* from, Node* to);

// How `overlay` shall name `base` in its header, and the format it gives: as whoever stands on it now does, if the name
// means the same file there. Errors: a format that is not known.
struct BackingName {
  std::string file, format;
};
BackingName backing_name(Node* root, Node* overlay, Node* base);

// Where a job writes. make_target() may block; any thread. Errors: the file is there and has contents.
struct TargetShape {
  u64 size = 0;
  std::string backing_file, backing_format;  // for JobSync::kTop
};
std::string target_format(const JobRequest& request);
// What a target for the disk `source` is to be. Errors: kTop of what stands on nothing.
Result<TargetShape> target_shape(const JobRequest& request, Node& source);
Result<void> make_target(const JobRequest& request, const TargetShape& shape);
// Errors: what `from` (down to `base`, which is not looked at) encrypts would be readable in `to`, and the request does
// not say that this is meant. nullptr for `to`: a new target.
Result<void> judge_secrecy(const JobRequest& request, Node* from, const Node* base, Node* to);
// Without its backing image.
Task<Result<NodePtr>> open_target(Executor* executor, const JobRequest* request, Node* source);
// Of the disk `source`, with all below it; nullptr: everything is copied.
const Node* not_copied(const JobRequest& request, const Node& source);

}  // namespace bulkhead::block
