#include "block/open/opener.h"

#include <sys/stat.h>

#include <algorithm>

namespace bulkhead::block {
namespace {

FileId id_of(const std::string& path) {
  struct stat info{};
  return ::stat(path.c_str(), &info) == 0 ? FileId{info.st_dev, info.st_ino} : FileId{};
}

}  // namespace

Result<std::shared_ptr<FileNode>> Opener::open_file(const OpenRequest& request) {
  return FileNode::open(executor_, {.path = request.path,
                                    .access = request.access,
                                    .direct = request.direct,
                                    .growable = true,
                                    .sparse = request.discard,
                                    .lock = request.lock});
}

Task<Result<std::string>> Opener::find_format(FileNode* file) {
  AlignedMemory head{4096};
  if (!head) co_return fail("no memory to open disk '{}'", file->name());
  const IoStatus status = co_await file->read_bytes(0, head.bytes());
  if (status != IoStatus::kOk) co_return fail("cannot read disk '{}': {}", file->name(), text_of(status));
  const std::span bytes = head.bytes().first(std::min<u64>(head.size(), file->size()));
  for (const Format& format : formats_)
    if (format.probe(bytes)) co_return std::string{format.name};
  co_return std::string{"raw"};
}

Task<Result<NodePtr>> Opener::open(OpenRequest request) {
  if (request.ancestors.size() >= kMaxDepth)
    co_return fail("disk '{}' stands below {} others; such a chain is refused", request.path, kMaxDepth);
  const FileId id = id_of(request.path);
  if (id.inode != 0 && std::ranges::find(request.ancestors, id) != request.ancestors.end())
    co_return fail("disk '{}' is its own backing image; the chain is refused", request.path);
  if (request.format.empty()) {
    OpenRequest look = request;
    look.access = DiskAccess::kReadOnly;
    look.direct = false;
    look.lock = FileLock::kNone;
    BH_CO_ASSIGN(const std::shared_ptr<FileNode> file, open_file(look));
    BH_CO_ASSIGN(request.format, co_await find_format(file.get()));
  }
  if (request.format == "raw") {
    auto raw = FileNode::open(executor_, {.path = request.path,
                                          .access = request.access,
                                          .direct = request.direct,
                                          .sparse = request.discard,
                                          .lock = request.lock});
    if (!raw) co_return std::unexpected(raw.error());
    co_return NodePtr{std::move(*raw)};
  }
  const auto format = std::ranges::find(formats_, request.format, &Format::name);
  if (format == formats_.end()) co_return fail("disk '{}': there is no format '{}'", request.path, request.format);
  BH_CO_ASSIGN(const std::shared_ptr<FileNode> file, open_file(request));
  request.ancestors.push_back(id);
  co_return co_await format->open(*this, file, std::move(request));
}

}  // namespace bulkhead::block
