// What we say we are: the Xen whose ABI we implement.
#pragma once
#include "abi/xen/domain.h"

namespace bulkhead::abi::xen {

inline constexpr u32 kXenMajor = 4, kXenMinor = 17;
inline constexpr u32 kXenVersion = kXenMajor << 16 | kXenMinor;
u32 xen_features(GuestKind kind, u64 assists);  // XENFEAT_*, a bit each; what VMASST_TYPE_* are enabled

}  // namespace bulkhead::abi::xen
