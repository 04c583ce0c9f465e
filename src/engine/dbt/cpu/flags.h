// RFLAGS bits [SDM-1 §3.4.3].
#pragma once
#include "base/ints.h"

namespace bulkhead::engine::dbt {

inline constexpr u64 kCf = 1u << 0, kPf = 1u << 2, kAf = 1u << 4, kZf = 1u << 6, kSf = 1u << 7, kTf = 1u << 8,
                     kIf = 1u << 9, kDf = 1u << 10, kOf = 1u << 11, kIopl = 3u << 12, kNt = 1u << 14, kRf = 1u << 16,
                     kVm = 1u << 17, kAc = 1u << 18, kVif = 1u << 19, kVip = 1u << 20, kId = 1u << 21;
inline constexpr u64 kArithmeticFlags = kCf | kPf | kAf | kZf | kSf | kOf;

}  // namespace bulkhead::engine::dbt
