// The cache on disk: entries (files or folders) that were expensive to make, each under a name that says all that went
// into it. An entry appears whole or not at all, and two processes never make the same one at once.
#pragma once
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "zone/store/tool.h"

namespace bulkhead::zone {

class Cache {
 public:
  // ${XDG_CACHE_HOME:-~/.cache}/bulkhead, made if it is not there.
  static Result<Cache> open();
  static Result<Cache> open_at(std::string root);

  // Makes the entry at the path it is given (which does not exist yet).
  using Maker = std::function<Result<void>(const std::string& temporary)>;
  // The path of entry `name` of `kind`; made by `make` when it is not there. At most `keep` entries of the kind stay,
  // the most recently used ones (0: no limit). Waits while another process makes one of that kind.
  Result<std::string> get(std::string_view kind, std::string_view name, Workshop& workshop, unsigned keep,
                          const Maker& make);

  const std::string& root() const { return root_; }
  std::string folder(std::string_view kind) const;  // may not exist

 private:
  explicit Cache(std::string root) : root_{std::move(root)} {}
  std::string root_;
};

}  // namespace bulkhead::zone
