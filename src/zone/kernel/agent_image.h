// The agent's program (guest/agent), carried inside ours.
#pragma once
#include <span>

#include "base/ints.h"

namespace bulkhead::zone {

std::span<const std::byte> agent_image();

}  // namespace bulkhead::zone
