// A vCPU in words, for a failure report.
#pragma once
#include <functional>
#include <string>

#include "engine/vcpu_state.h"

namespace bulkhead::engine {

// Registers, and the bytes at RIP: `read_byte` gives one by its linear address, or nothing.
std::string describe_state(const VcpuState& state, const std::function<std::optional<u8>(u64 linear)>& read_byte);

}  // namespace bulkhead::engine
