#include "abi/kvm/kvm_leaves.h"

#include <algorithm>

namespace bulkhead::abi::kvm {
namespace {
constexpr u32 kLeaves = 0x40000000, kHypervisorBit = 1u << 31;
// Old and new clock, no delays behind port accesses, steal time, EOIs in memory, kicks of halted vCPUs, TLB flushes
// that wait for nobody who does not run, IPIs to many at once, yielding to a vCPU, a clock that is the same on all
// vCPUs. Not 4, 10 and 14: asynchronous page faults.
constexpr u32 kFeatures =
    1u << 0 | 1u << 1 | 1u << 3 | 1u << 5 | 1u << 6 | 1u << 7 | 1u << 9 | 1u << 11 | 1u << 13 | 1u << 24;
}  // namespace

engine::CpuModel with_kvm_leaves(engine::CpuModel model) {
  std::erase_if(model.leaves, [](const engine::CpuidLeaf& leaf) { return leaf.leaf >> 16 == kLeaves >> 16; });
  const auto at = std::ranges::partition_point(model.leaves, [](const auto& leaf) { return leaf.leaf < kLeaves; });
  model.leaves.insert(at, {{kLeaves, 0, kLeaves + 1, 0x4b4d564b, 0x564b4d56, 0x4d},  // "KVMKVMKVM"
                           {kLeaves + 1, 0, kFeatures, 0, 0, 0}});
  for (engine::CpuidLeaf& leaf : model.leaves)
    if (leaf.leaf == 1) leaf.ecx |= kHypervisorBit;
  return model;
}

}  // namespace bulkhead::abi::kvm
