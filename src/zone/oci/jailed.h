// Work on what an image holds, in a process of its own that has the files it needs and nothing else.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "fs/jail/jail.h"
#include "zone/store/tool.h"

namespace bulkhead::zone {

// Runs `work` in a child of this process, which must have one thread only: in namespaces and a root of its own where
// this host allows them, with none of our capabilities but those that making files of other owners takes, and with the
// system calls for files. Returns what `work` returned, 64 MiB at most. Errors: the same; `work` did not come to an
// end.
using JailedWork = std::function<Result<std::string>(Workshop&)>;
Result<std::string> in_jail(const std::vector<fs::JailedPath>& paths, Workshop& workshop, const JailedWork& work);

}  // namespace bulkhead::zone
