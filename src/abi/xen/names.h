// Names of hypercalls, for reports.
#pragma once
#include <string>

#include "base/ints.h"

namespace bulkhead::abi::xen {

inline constexpr u64 kHypercallNumbers = 64;  // numbers below have a statistic each; all others share one

// As in xen.h without the prefix: "event_channel_op"; "hypercall_<number>" for those without a name, "hypercall_other"
// from kHypercallNumbers on.
std::string hypercall_name(u64 number);

}  // namespace bulkhead::abi::xen
