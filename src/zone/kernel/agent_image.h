// The agents' programs (guest/agent, guest/pod), carried inside ours.
#pragma once
#include <span>

#include "base/ints.h"

namespace bulkhead::zone {

std::span<const std::byte> agent_image();
std::span<const std::byte> pod_agent_image();

}  // namespace bulkhead::zone
