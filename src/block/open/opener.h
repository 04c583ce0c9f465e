// From a path to a graph of nodes: opens files, finds out formats, and lets formats open their own children.
// A format is a row in a table that the caller brings; formats know this file, and it knows no format.
#pragma once
#include <sys/types.h>

#include <map>
#include <span>
#include <string>
#include <vector>

#include "block/file/file_node.h"

namespace bulkhead::block {

struct FileId {
  dev_t device = 0;
  ino_t inode = 0;
  bool operator==(const FileId&) const = default;
};

struct OpenRequest {
  std::string path;
  std::string format{};  // "raw", "qcow2", ...; empty: by the file's first bytes, which is for images that no guest has
                         // written to as raw disks
  DiskAccess access = DiskAccess::kReadOnly;
  bool direct = false;
  bool discard = true;      // what a guest discards is given back to the host
  bool no_backing = false;  // the image alone; what it does not hold reads as zeroes
  FileLock lock = FileLock::kAsUsed;
  std::map<std::string, std::string> options{};  // a format's own, by its names: keys and so on
  std::vector<FileId> ancestors{};               // the images above in the chain; filled in by Opener
};

class Opener;

// One image format.
struct Format {
  std::string_view name;
  // Whether these first bytes of a file (up to 4 KiB) are one. Hostile input.
  bool (*probe)(std::span<const std::byte> head);
  // Opens the image in `file`, with its children through `opener`: pass on request.ancestors. Hostile input.
  Task<Result<NodePtr>> (*open)(Opener& opener, NodePtr file, OpenRequest request);
};

class Opener {
 public:
  static constexpr std::size_t kMaxDepth = 256;  // images in one chain

  // `formats` outlives us.
  Opener(Executor& executor, std::span<const Format> formats) : executor_{executor}, formats_{formats} {}
  Executor& executor() const { return executor_; }

  // The image at request.path and all below it. Errors: as FileNode::open; unknown format; a chain that is too deep or
  // comes back to itself. Executor's thread.
  Task<Result<NodePtr>> open(OpenRequest request);
  // Just the file, for a format's external data.
  Result<std::shared_ptr<FileNode>> open_file(const OpenRequest& request);

 private:
  Task<Result<std::string>> find_format(FileNode* file);
  Executor& executor_;
  std::span<const Format> formats_;
};

}  // namespace bulkhead::block
