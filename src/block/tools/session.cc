#include "block/tools/session.h"

#include <fcntl.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/bits.h"
#include "block/crypto/luks1.h"

namespace bulkhead::block::tools {

Result<std::unique_ptr<Session>> Session::create(IoEngineKind engine) {
  BH_ASSIGN(auto executor, Executor::create({.engine = engine}));
  return std::unique_ptr<Session>{new Session{std::move(executor)}};
}

Session::~Session() {
  for (NodePtr& node : open_) executor_->run(close_graph(node));
  executor_->run([this] { open_.clear(); });
}

Result<NodePtr> Session::open(OpenRequest request) {
  Opener opener{*executor_, builtin_formats()};
  BH_ASSIGN(NodePtr node, executor_->run(opener.open(std::move(request))));
  open_.push_back(node);
  return node;
}

Result<void> Session::close(const NodePtr& node) {
  const IoStatus status = executor_->run(close_graph(node));
  std::erase(open_, node);
  if (status != IoStatus::kOk) return std::unexpected(failed(*node, "closing", status));
  return {};
}

qcow2::Qcow2Node* as_qcow2(Node* node) { return dynamic_cast<qcow2::Qcow2Node*>(node); }

bool is_encrypted(Node* node) {
  const qcow2::Qcow2Node* const image = as_qcow2(node);
  return image != nullptr && image->header().encrypted();
}

bool any_encrypted(Node* node, const Node* base) {
  while (node != nullptr && node != base && !is_encrypted(node)) node = node->child(ChildRole::kBacking);
  return node != nullptr && node != base;
}

std::map<std::string, std::string> key_options(const std::string& key_file, const std::string& backing_key_file) {
  std::map<std::string, std::string> out;
  if (!key_file.empty()) out["key-file"] = key_file;
  if (!backing_key_file.empty()) out["backing.key-file"] = backing_key_file;
  return out;
}

Error failed(const Node& node, std::string_view what, IoStatus status) {
  const std::string why = node.last_error();
  return {fmt::format("{} '{}' failed: {}", what, node.name(), why.empty() ? std::string{text_of(status)} : why)};
}

namespace {

Result<NodePtr> open_new(Session& session, const std::string& path, u64 bytes) {
  BH_TRY(FileNode::create(path, bytes));
  BH_ASSIGN(auto file,
            FileNode::open(session.executor(), {.path = path, .access = DiskAccess::kReadWrite, .growable = true}));
  return NodePtr{std::move(file)};
}

Result<void> create_raw(Session& session, const NewImage& image) {
  if (image.options.size == 0) return fail("disk '{}' needs a size", image.path);
  BH_ASSIGN(NodePtr file, open_new(session, image.path, 0));
  IoStatus status = session.run(file->truncate(image.options.size, image.options.preallocation));
  if (status == IoStatus::kOk) status = session.run(close_graph(file));
  if (status != IoStatus::kOk) return std::unexpected(failed(*file, "making", status));
  session.executor().run([&] { file.reset(); });
  return {};
}

}  // namespace

Result<void> create_image(Session& session, const NewImage& image) {
  if (image.format == "raw") return create_raw(session, image);
  if (image.format != "qcow2") return fail("'{}' is not a format that can be made; raw and qcow2 are", image.format);
  qcow2::CreateOptions options = image.options;
  if (!image.key_file.empty()) {
    BH_ASSIGN(const std::string key, qcow2::read_key(image.key_file));
    BH_ASSIGN(options.luks_header, make_luks1(key, image.key_time_ms));
  }
  BH_ASSIGN(NodePtr file, open_new(session, image.path, 0));
  Result<void> made = session.run(qcow2::format_image(file, std::move(options)));
  session.executor().run([&] { file.reset(); });
  if (!made) return fail("cannot make '{}': {}", image.path, made.error().message);
  if (!image.options.data_file.empty()) {
    const std::string data = qcow2::child_path(image.path, image.options.data_file);
    BH_TRY(FileNode::create(data, image.options.size));
  }
  if (image.options.preallocation == Preallocation::kOff) return {};
  OpenRequest request{.path = image.path, .format = "qcow2", .access = DiskAccess::kReadWrite};
  BH_ASSIGN(NodePtr node, session.open(request));
  const IoStatus status = session.run(as_qcow2(node.get())->preallocate_all(image.options.preallocation));
  if (status != IoStatus::kOk) return std::unexpected(failed(*node, "preallocating", status));
  return session.close(node);
}

Result<u64> parse_bytes(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  constexpr std::string_view kUnits = "bkMGTPE";
  std::string_view unit = end;
  if (end == text.c_str() || !(value >= 0) || std::isinf(value)) return fail("'{}' is not a size", text);
  unsigned shift = 0;
  if (!unit.empty()) {
    const char letter = unit[0] == 'K'   ? 'k'
                        : unit[0] == 'm' ? 'M'
                        : unit[0] == 'g' ? 'G'
                        : unit[0] == 't' ? 'T'
                                         : unit[0];
    const std::size_t index = kUnits.find(letter);
    if (index == std::string_view::npos || unit.size() > 1)
      return fail("'{}' is not a size: its unit is one of k, M, G, T, P, E", text);
    shift = static_cast<unsigned>(index) * 10;
  }
  const double bytes = value * static_cast<double>(u64{1} << shift);
  if (bytes > 9.2e18) return fail("'{}' is too large", text);
  return static_cast<u64>(bytes);
}

}  // namespace bulkhead::block::tools
