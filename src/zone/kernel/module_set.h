// Which modules of a kernel package a zone needs, in the order in which they must be loaded.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "base/result.h"

namespace bulkhead::zone {

struct WantedModule {
  std::string name;
  bool required = true;  // false: left out when the kernel has no such module
  bool waits = false;    // loading it waits for its devices, which takes long: the agent goes on meanwhile
};

struct LoadableModule {
  std::string name;
  std::string content;  // unpacked ELF file
};

// Reads the tree below `folder` (lib/modules/RELEASE). Needs no modules.dep, which only an installed kernel has: the
// modules say themselves what they depend on. What modules.builtin lists is left out.
// Errors: a required module or a dependency is missing, or a file is broken; the message names it.
Result<std::vector<LoadableModule>> resolve_modules(const std::string& folder, const std::vector<WantedModule>& wanted);

}  // namespace bulkhead::zone
