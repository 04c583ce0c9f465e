#include "block/disk/open_disk.h"

#include "block/formats/formats.h"

namespace bulkhead::block {
namespace {

std::string format_of(const DiskConfig& config) {
  if (!config.format.empty()) return config.format;
  return config.path.ends_with(".qcow2") ? "qcow2" : "raw";
}

}  // namespace

Result<std::unique_ptr<Disk>> open_disk(const DiskConfig& config) {
  BH_ASSIGN(std::unique_ptr<Executor> executor, Executor::create({.engine = config.engine}));
  Opener opener{*executor, builtin_formats()};
  OpenRequest request;
  request.path = config.path;
  request.format = format_of(config);
  request.access = config.read_only ? DiskAccess::kReadOnly : DiskAccess::kReadWrite;
  request.direct = config.direct;
  request.discard = config.discard;
  if (!config.key_file.empty()) request.options["key-file"] = config.key_file;
  if (!config.backing_key_file.empty()) request.options["backing.key-file"] = config.backing_key_file;
  BH_ASSIGN(NodePtr root, executor->run(opener.open(std::move(request))));
  return Disk::create(std::move(executor), std::move(root), config.options);
}

}  // namespace bulkhead::block
