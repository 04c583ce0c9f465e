// The CPUID feature bits that guests of ours may get: one table, from which every CPU model is cut.
#pragma once
#include <span>
#include <string_view>

#include "base/ints.h"

namespace bulkhead::engine {

// Smallest psABI level that contains the feature; kHost: only the model `host` shows it [x86-64 psABI
// "Micro-Architecture Levels"]. The levels also hold what every host of that level has in practice (AES from v2 on).
enum class Level : u8 { kBaseline, kV2, kV3, kV4, kHost };

enum class Provider : u8 {
  kHost,    // guest instructions run on the host's units: it must have the feature
  kEngine,  // every engine provides it, whatever the host has
};

struct FeatureBit {
  u32 leaf, subleaf;
  char reg;
  u8 bit;
  Level level;
  Provider provider;
  std::string_view name;  // as /proc/cpuinfo spells it
};

std::span<const FeatureBit> feature_bits();

}  // namespace bulkhead::engine
