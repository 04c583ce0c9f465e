// Larger pieces of work on images, each whole.
#pragma once
#include <optional>

#include "block/tools/copy.h"

namespace bulkhead::block::tools {

struct MapLine {
  u64 start = 0, length = 0;
  unsigned depth = 0;
  bool present = false, zero = false, data = false;
  std::optional<u64> host_offset;
  std::string file;
};
Task<Result<std::vector<MapLine>>> map_image(Node* node);

// Sees that the backing file of an image to be made is there, has a format, and gives the size if there is none.
Result<void> judge_backing(Session& session, NewImage& image, bool blindly);

struct RebaseRequest {
  std::string path, backing, backing_format;
  bool unsafe = false;  // only the name: contents change if the new one's are others
  std::string key_file{}, backing_key_file{};
};
Result<void> rebase_image(Session& session, const RebaseRequest& request);
struct CommitRequest {
  std::string path;
  bool keep = false;  // the image is not emptied
  std::string key_file{}, backing_key_file{};
};
// Into the backing file. Answers whether what was encrypted is not encrypted there.
Result<bool> commit_image(Session& session, const CommitRequest& request, CopyProgress* progress);

}  // namespace bulkhead::block::tools
