// Doing something in another network namespace.
#pragma once
#include <functional>
#include <string>

#include "base/result.h"

namespace bulkhead::net {

// Runs `work` on a thread of its own that has entered the namespace: a name as `ip netns` has it, or a path. An empty
// one is ours, and `work` runs here. Errors: there is no such namespace, or we may not enter it.
Result<void> in_namespace(const std::string& netns, const std::function<Result<void>()>& work);

}  // namespace bulkhead::net
