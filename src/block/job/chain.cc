#include "block/job/chain.h"

#include <sys/stat.h>

#include <filesystem>

#include "block/formats/formats.h"
#include "block/tools/session.h"

namespace bulkhead::block {

namespace fs = std::filesystem;

Result<Node*> find_below(Node* root, const std::string& path) {
  Node* const next = root->child(ChildRole::kBacking);
  if (next == nullptr) return fail("'{}' stands on no other image", root->name());
  if (path.empty()) return next;
  std::string known;
  for (Node* node = next; node != nullptr; node = node->child(ChildRole::kBacking)) {
    std::error_code error;
    if (node->name() == path || fs::equivalent(node->name(), path, error)) return node;
    known += (known.empty() ? "'" : ", '") + node->name() + "'";
  }
  return fail("'{}' is none of the images that '{}' stands on: {}", path, root->name(), known);
}

Node* overlay_of(Node* root, const Node* node) {
  while (root != nullptr && root->child(ChildRole::kBacking) != node) root = root->child(ChildRole::kBacking);
  return root;
}

void detach_backing(Node* root, const Node* base) {
  if (Node* const overlay = overlay_of(root, base)) overlay->detach(ChildRole::kBacking);
}

const Node* share_backing(Node* from, Node* to) {
  Node* const backing = from->child(ChildRole::kBacking);
  static_cast<qcow2::Qcow2Node*>(to)->adopt_backing(backing->shared_from_this());
  return backing;
}

BackingName backing_name(Node* root, Node* overlay, Node* base) {
  const auto* const above = tools::as_qcow2(overlay_of(root, base));
  BackingName out{base->name(), std::string{base->driver() == "qcow2" ? "qcow2" : "raw"}};
  if (above == nullptr) return out;
  const fs::path recorded = above->header().backing_file;
  const fs::path ours = fs::path{overlay->name()}.parent_path(), theirs = fs::path{above->name()}.parent_path();
  std::error_code error;
  if (recorded.is_absolute() || fs::weakly_canonical(ours.empty() ? "." : ours, error) ==
                                    fs::weakly_canonical(theirs.empty() ? "." : theirs, error))
    out.file = recorded.string();
  else
    out.file = fs::absolute(base->name(), error).string();
  return out;
}

std::string target_format(const JobRequest& request) {
  if (!request.format.empty()) return request.format;
  return request.target.ends_with(".qcow2") ? "qcow2" : "raw";
}

Result<TargetShape> target_shape(const JobRequest& request, Node& source) {
  TargetShape shape;
  shape.size = source.size();
  if (request.sync == JobSync::kFull) return shape;
  Node* const backing = request.sync == JobSync::kNone ? &source : source.child(ChildRole::kBacking);
  if (backing == nullptr) return fail("'{}' stands on no other image; sync is full there", source.name());
  if (target_format(request) != "qcow2")
    return fail("a {} image stands on no other; sync={} needs qcow2", target_format(request), name_of(request.sync));
  std::error_code error;
  shape.backing_file = fs::absolute(backing->name(), error).string();
  shape.backing_format = backing->driver() == "qcow2" ? "qcow2" : "raw";
  return shape;
}

Result<void> make_target(const JobRequest& request, const TargetShape& shape) {
  if (request.existing) return {};
  std::error_code error;
  if (fs::exists(request.target, error) &&
      (!fs::is_regular_file(request.target, error) || fs::file_size(request.target, error) != 0))
    return fail("'{}' is there already; say that it is to be used (existing), or name another", request.target);
  tools::NewImage image{.path = request.target, .format = target_format(request), .options = {}};
  image.key_file = request.key_file;
  image.key_time_ms = request.key_time_ms;
  if (!image.key_file.empty() && image.format != "qcow2")
    return fail("a {} image cannot be encrypted; name a qcow2 target", image.format);
  image.options.size = shape.size;
  image.options.backing_file = shape.backing_file;
  image.options.backing_format = shape.backing_format;
  BH_ASSIGN(const auto session, tools::Session::create());
  return tools::create_image(*session, image);
}

Result<void> judge_secrecy(const JobRequest& request, Node* from, const Node* base, Node* to) {
  if (request.unencrypted || !tools::any_encrypted(from, base)) return {};
  if (to == nullptr ? !request.key_file.empty() : tools::is_encrypted(to)) return {};
  return fail("'{}' is encrypted, or what it stands on, and '{}' would not be: {}say --unencrypted if that is meant",
              from->name(), to == nullptr ? request.target : to->name(),
              to == nullptr ? "give the copy a key (--key-file), or " : "");
}

const Node* not_copied(const JobRequest& request, const Node& source) {
  return request.sync == JobSync::kTop ? source.child(ChildRole::kBacking) : nullptr;
}

Task<Result<NodePtr>> open_target(Executor* executor, const JobRequest* request, Node* source) {
  Opener opener{*executor, builtin_formats()};
  OpenRequest open;
  open.path = request->target;
  open.format = target_format(*request);
  open.access = DiskAccess::kReadWrite;
  // What stands below an image that is there already is its own affair; what we made stands on nothing yet.
  open.no_backing = !request->existing || request->sync != JobSync::kFull;
  open.options = tools::key_options(request->key_file, request->key_file);
  BH_CO_ASSIGN(NodePtr node, co_await opener.open(std::move(open)));
  if (request->existing) {
    // Also what only looks encrypted: without a key nothing could be written.
    const Result<void> secret = judge_secrecy(*request, source, not_copied(*request, *source), node.get());
    const bool locked = tools::is_encrypted(node.get()) && request->key_file.empty();
    if (!secret || locked) {
      co_await close_graph(node);
      if (!secret) co_return std::unexpected(secret.error());
      co_return fail("'{}' is encrypted; give its key (--key-file)", request->target);
    }
  }
  if (node->size() == source->size()) co_return node;
  const u64 size = node->size();
  co_await close_graph(node);
  co_return fail("'{}' has {} bytes, the disk has {}", request->target, size, source->size());
}

}  // namespace bulkhead::block
