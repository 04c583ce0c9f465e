#include "abi/xen/pv/cpu_policy.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace bulkhead::abi::xen::pv {
namespace {

const engine::CpuidLeaf* find(const engine::CpuModel& model, u32 leaf, u32 subleaf = 0) {
  for (const auto& l : model.leaves)
    if (l.leaf == leaf && l.subleaf == subleaf) return &l;
  return nullptr;
}

TEST(PvCpuPolicy, HidesWhatNeedsRing0) {
  engine::CpuModel model;
  model.tsc_hz = 2'000'000'000;
  for (const u32 leaf : {1u, 5u, 7u, 0xau, 0x40000000u, 0x80000001u})
    model.leaves.push_back({leaf, 0, ~0u, ~0u, ~0u, ~0u});
  const engine::CpuModel pv = pv_cpu_model(model);
  ASSERT_NE(find(pv, 1), nullptr);
  EXPECT_FALSE(find(pv, 1)->edx & (1u << 9 | 1u << 13 | 1u << 3));  // APIC, PGE, PSE
  EXPECT_FALSE(find(pv, 1)->ecx & (1u << 3 | 1u << 5 | 1u << 17));  // MONITOR, VMX, PCID
  EXPECT_TRUE(find(pv, 1)->ecx & 1u << 31);
  EXPECT_FALSE(find(pv, 7)->ebx & (1u << 7 | 1u << 10 | 1u << 20));  // SMEP, INVPCID, SMAP
  EXPECT_FALSE(find(pv, 0x80000001)->edx & (1u << 26));              // 1 GiB pages
  EXPECT_FALSE(find(pv, 0x80000001)->ecx & (1u << 2));               // SVM
  EXPECT_EQ(find(pv, 5)->eax | find(pv, 0xa)->eax, 0u);
}

TEST(PvCpuPolicy, TellsOfXenOnce) {
  engine::CpuModel model;
  model.leaves = {{0, 0, 7, 0, 0, 0}, {0x40000000, 0, 1, 2, 3, 4}, {0x80000000, 0, 0x80000008, 0, 0, 0}};
  const engine::CpuModel pv = pv_cpu_model(model);
  unsigned count = 0;
  for (const auto& l : pv.leaves) count += l.leaf == 0x40000000;
  EXPECT_EQ(count, 1u);
  EXPECT_EQ(find(pv, 0x40000000)->ebx, 0x566e6558u);  // "XenV"
  EXPECT_EQ(find(pv, 0x40000001)->eax, 4u << 16 | 17);
  EXPECT_TRUE(std::ranges::is_sorted(pv.leaves, {}, [](const auto& l) { return l.leaf; }));
}

}  // namespace
}  // namespace bulkhead::abi::xen::pv
