// What of the sandbox's network namespace becomes the zone's: every device that containerd's plugins have put there.
#pragma once
#include <string>
#include <vector>

#include "base/result.h"

namespace bulkhead::container {

// As `bulkhead run --net` wants them; none for an empty path. Errors: the namespace cannot be entered.
Result<std::vector<std::string>> pod_networks(const std::string& net_space);

}  // namespace bulkhead::container
