// The agent's numbers as containerd's metrics.
#pragma once
#include <string>

#include "guest/pod/pod.pb.h"

namespace bulkhead::container {

// A serialized io.containerd.cgroups.v2.Metrics.
std::string metrics_of(const pod::StatsResponse& numbers);

}  // namespace bulkhead::container
