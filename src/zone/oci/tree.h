// A folder on the host that becomes an image's root file system. Names come from the image and are not trusted: each is
// cut into components, ".." is refused, and the folder above the last one is looked up with this folder as the root
// [openat2(2) RESOLVE_IN_ROOT], so that links lead nowhere else. The last component is never followed.
#pragma once
#include <sys/stat.h>

#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/ints.h"
#include "base/result.h"

namespace bulkhead::zone {

class Tree {
 public:
  // `path` is a folder of ours. Owners are set if we are root; others get everything themselves.
  static Result<Tree> open(const std::string& path);

  struct Attributes {
    u32 uid = 0, gid = 0;
    mode_t mode = 0;  // the lowest 12 bits
    timespec time{};
  };
  // Each replaces what is there, but a folder stays one. Errors: a name that is none, or the host's.
  Result<void> folder(std::string_view name, const Attributes& attributes);
  Result<void> symlink(std::string_view name, const std::string& target, const Attributes& attributes);
  Result<void> pipe(std::string_view name, const Attributes& attributes);
  // `target` is a name in the tree, not a folder; itself if it is a symbolic link.
  Result<void> hard_link(std::string_view name, std::string_view target);
  // An open file, then its end.
  Result<UniqueFd> create(std::string_view name);
  Result<void> finish(const UniqueFd& file, const Attributes& attributes);
  // What lower layers had there; what this layer has made stays.
  Result<void> remove(std::string_view name);
  Result<void> clear(std::string_view folder);

  // Before a layer's first entry; behind its last (folders' times).
  void begin_layer() { made_.clear(); }
  Result<void> end_layer();

  // A small file's content, through links; empty if there is none.
  std::string read(std::string_view name, std::size_t most) const;
  // Makes the folder with all above it, if it is not there.
  Result<void> ensure_folder(std::string_view name);

 private:
  struct Place {
    UniqueFd parent;
    std::string last;  // empty: the root itself
  };
  using Inode = std::pair<dev_t, ino_t>;
  struct Hash {
    std::size_t operator()(const Inode& one) const { return one.second * 31 + one.first; }
  };
  explicit Tree(UniqueFd root) : root_{std::move(root)} {}
  Result<Place> place(std::string_view name, bool make);
  Result<UniqueFd> find_folder(const std::string& path) const;
  Result<void> make_way(const Place& place, bool keep_folder, bool& kept);
  Result<void> remove_at(int parent, const char* name, unsigned depth);
  Result<void> clear_at(int folder, unsigned depth);
  Result<void> set(const Place& place, const Attributes& attributes, bool link);
  void remember(int parent, const char* name);

  UniqueFd root_;
  std::unordered_set<Inode, Hash> made_;  // by this layer
  std::vector<std::pair<std::string, timespec>> folder_times_;
};

}  // namespace bulkhead::zone
