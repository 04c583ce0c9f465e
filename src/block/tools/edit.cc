#include "block/tools/edit.h"

#include <algorithm>

#include "base/bits.h"

namespace bulkhead::block::tools {

using Kind = BlockStatus::Kind;

Task<Result<std::vector<MapLine>>> map_image(Node* node) {
  std::vector<MapLine> out;
  for (u64 at = 0; at < node->size();) {
    auto found = co_await chain_status(node, nullptr, at, node->size() - at);
    if (!found) co_return std::unexpected(failed(*node, "mapping", found.error()));
    MapLine line{at, found->status.length, found->depth, found->present, found->zero, found->data, {}, {}};
    if (found->status.host != nullptr) {
      line.host_offset = found->status.host_offset;
      line.file = found->status.host->name();
    }
    MapLine* const last = out.empty() ? nullptr : &out.back();
    const bool follows = last != nullptr && last->depth == line.depth && last->present == line.present &&
                         last->zero == line.zero && last->data == line.data && last->file == line.file &&
                         last->host_offset.has_value() == line.host_offset.has_value() &&
                         (!line.host_offset || *last->host_offset + last->length == *line.host_offset);
    if (follows)
      last->length += line.length;
    else
      out.push_back(std::move(line));
    at += found->status.length;
  }
  co_return out;
}

Result<void> judge_backing(Session& session, NewImage& image, bool blindly) {
  qcow2::CreateOptions& options = image.options;
  if (options.backing_file.empty()) return {};
  if (image.format != "qcow2") return fail("{} images have no backing file", image.format);
  if (options.backing_format.empty())
    return fail(
        "say which format the backing file '{}' has, with -F raw or -F qcow2: a raw disk's guest could write what "
        "looks like another format",
        options.backing_file);
  if (blindly) return {};
  BH_ASSIGN(NodePtr backing, session.open({.path = qcow2::child_path(image.path, options.backing_file),
                                           .format = options.backing_format,
                                           .options = key_options(image.backing_key_file, image.backing_key_file)}));
  if (options.size == 0) options.size = backing->size();
  return session.close(backing);
}

namespace {

constexpr u64 kChunk = 1_MiB;

// Writes into the image whatever reads differently from the new backing image (nullptr: none).
Task<Result<void>> keep_contents(Node* image, Node* now) {
  AlignedMemory ours{kChunk}, theirs{kChunk};
  if (!ours || !theirs) co_return fail("no memory to rebase with");
  for (u64 at = 0; at < image->size();) {
    const auto status = co_await image->block_status(at, std::min(kChunk, image->size() - at));
    if (!status) co_return std::unexpected(failed(*image, "examining", status.error()));
    const u64 count = std::min(status->length, kChunk);
    if (status->kind == Kind::kUnallocated) {
      IoStatus done = co_await image->read_bytes(at, ours.bytes().first(count));
      if (done != IoStatus::kOk) co_return std::unexpected(failed(*image, "reading", done));
      const u64 there = now == nullptr || at >= now->size() ? 0 : std::min(count, now->size() - at);
      std::memset(theirs.data(), 0, count);
      if (there != 0) done = co_await now->read_bytes(at, theirs.bytes().first(there));
      if (done != IoStatus::kOk) co_return std::unexpected(failed(*now, "reading", done));
      if (std::memcmp(ours.data(), theirs.data(), count) != 0)
        done = co_await image->write_bytes(at, ours.bytes().first(count));
      if (done != IoStatus::kOk) co_return std::unexpected(failed(*image, "writing", done));
    }
    at += count;
  }
  co_return Result<void>{};
}

}  // namespace

Result<void> rebase_image(Session& session, const RebaseRequest& request) {
  OpenRequest open{.path = request.path, .format = "qcow2", .access = DiskAccess::kReadWrite};
  open.no_backing = request.unsafe;
  open.options = key_options(request.key_file, request.backing_key_file);
  BH_ASSIGN(NodePtr node, session.open(open));
  if (!request.unsafe) {
    NodePtr now;
    if (!request.backing.empty()) {
      if (request.backing_format.empty())
        return fail("say which format '{}' has, with -F raw or -F qcow2", request.backing);
      BH_ASSIGN(now, session.open({.path = qcow2::child_path(request.path, request.backing),
                                   .format = request.backing_format,
                                   .options = key_options(request.backing_key_file, request.backing_key_file)}));
    }
    BH_TRY(session.run(keep_contents(node.get(), now.get())));
    const IoStatus status = session.run(node->flush());  // before the name changes
    if (status != IoStatus::kOk) return std::unexpected(failed(*node, "flushing", status));
  }
  BH_TRY(session.run(as_qcow2(node.get())->change_backing(request.backing, request.backing_format)));
  return session.close(node);
}

Result<bool> commit_image(Session& session, const CommitRequest& request, CopyProgress* progress) {
  const std::string& path = request.path;
  OpenRequest open{
      .path = path, .format = "qcow2", .access = request.keep ? DiskAccess::kReadOnly : DiskAccess::kReadWrite};
  open.no_backing = true;
  open.options = key_options(request.key_file, {});
  BH_ASSIGN(NodePtr node, session.open(open));
  qcow2::Qcow2Node* const image = as_qcow2(node.get());
  const qcow2::Header& header = image->header();
  if (header.backing_file.empty()) return fail("'{}' has no backing file to commit to", path);
  OpenRequest below{.path = qcow2::child_path(path, header.backing_file),
                    .format = header.backing_format,
                    .access = DiskAccess::kReadWrite,
                    .options = key_options(request.backing_key_file, request.backing_key_file)};
  BH_ASSIGN(NodePtr base, session.open(below));
  if (base->size() < node->size()) {
    const IoStatus status = session.run(base->truncate(node->size()));
    if (status != IoStatus::kOk) return std::unexpected(failed(*base, "growing", status));
  }
  CopyOptions how;
  how.only_top = true;
  how.target_is_zero = false;
  BH_TRY(session.run(copy(node.get(), base.get(), how, progress)));
  const bool bared = is_encrypted(node.get()) && !is_encrypted(base.get());
  BH_TRY(session.close(base));
  if (!request.keep) {
    const IoStatus status = session.run(image->make_empty());
    if (status != IoStatus::kOk && status != IoStatus::kUnsupported)
      return std::unexpected(failed(*node, "emptying", status));
  }
  BH_TRY(session.close(node));
  return bared;
}

}  // namespace bulkhead::block::tools
