#include "engine/cpu_model.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "engine/cpu_features.h"
#include "engine/engine.h"
#include "engine/host_tsc.h"

namespace bulkhead::engine {
namespace {

CpuModel host(unsigned vcpus = 1) {
  auto model = make_cpu_model("host", vcpus);
  EXPECT_TRUE(model);
  return *model;
}

// Every portable model that this host can show, and `host`.
std::vector<CpuModel> usable(unsigned vcpus) {
  std::vector<CpuModel> models;
  for (const std::string_view name : cpu_model_names())
    if (auto model = make_cpu_model(name, vcpus)) models.push_back(*model);
  return models;
}

TEST(CpuModel, UnknownNameIsRefusedAndTheKnownOnesAreNamed) {
  const auto model = make_cpu_model("pentium", 1);
  ASSERT_FALSE(model);
  EXPECT_NE(model.error().message.find("pentium"), std::string::npos);
  EXPECT_NE(model.error().message.find("x86-64-v3"), std::string::npos);
}

TEST(CpuModel, VcpuCountOutOfRangeIsRefused) {
  EXPECT_FALSE(make_cpu_model("host", 0));
  EXPECT_FALSE(make_cpu_model("host", 256));
}

TEST(CpuModel, TableIsSortedAndUnique) {
  for (const CpuModel& model : usable(3)) {
    const auto key = [](const CpuidLeaf& leaf) { return std::pair{leaf.leaf, leaf.subleaf}; };
    EXPECT_TRUE(std::ranges::is_sorted(model.leaves, {}, key)) << model.name;
    EXPECT_EQ(std::ranges::adjacent_find(model.leaves, {}, key), model.leaves.end()) << model.name;
  }
}

TEST(CpuModel, LookupFindsEveryLeaf) {
  for (const CpuModel& model : usable(2))
    for (const CpuidLeaf& leaf : model.leaves) EXPECT_EQ(model.lookup(leaf.leaf, leaf.subleaf).eax, leaf.eax);
}

TEST(CpuModel, LeafWithoutSubleavesIgnoresEcx) {
  const CpuModel model = host();
  EXPECT_EQ(model.lookup(1, 77).eax, model.lookup(1, 0).eax);
}

TEST(CpuModel, OutOfRangeFollowsTheVendor) {
  CpuModel model;
  model.leaves = {{0, 0, 1, 0x756e6547, 0, 0}, {1, 0, 0x11, 0, 0, 0}};
  EXPECT_EQ(model.lookup(0x20, 0).eax, 0x11u);
  EXPECT_EQ(model.lookup(0x40000000, 0).eax, 0u);
  model.leaves[0].ebx = 0x68747541;
  EXPECT_EQ(model.lookup(0x20, 0).eax, 0u);
}

TEST(CpuModel, EmptyModelAnswersZeroes) {
  const CpuModel model;
  EXPECT_EQ(model.lookup(0, 0).eax, 0u);
  EXPECT_FALSE(model.has(1, 0, 'd', 4));
}

TEST(CpuModel, WhatNoEngineProvidesIsNeverShown) {
  for (const CpuModel& model : usable(1)) {
    EXPECT_FALSE(model.has(1, 0, 'c', 5)) << "VMX";
    EXPECT_FALSE(model.has(1, 0, 'c', 3)) << "MONITOR";
    EXPECT_FALSE(model.has(7, 0, 'c', 3)) << "PKU";
    EXPECT_FALSE(model.has(7, 0, 'c', 16)) << "LA57";
    EXPECT_FALSE(model.has(7, 0, 'c', 7)) << "CET";
    EXPECT_FALSE(model.has(7, 0, 'd', 24)) << "AMX";
    EXPECT_FALSE(model.has(0x80000001, 0, 'c', 2)) << "SVM";
    EXPECT_EQ(model.xcr0_mask & ~u64{0xe7}, 0u);
  }
}

TEST(CpuModel, WhatAKernelNeedsIsThere) {
  for (const CpuModel& model : usable(1)) {
    for (const unsigned feature : {0u, 4u, 5u, 6u, 8u, 9u, 13u, 15u, 24u, 25u, 26u})
      EXPECT_TRUE(model.has(1, 0, 'd', feature)) << model.name << " " << feature;
    EXPECT_TRUE(model.has(1, 0, 'c', 21)) << "x2APIC";
    EXPECT_TRUE(model.has(1, 0, 'c', 31)) << "hypervisor";
    EXPECT_TRUE(model.has(0x80000001, 0, 'd', 29)) << "long mode";
    EXPECT_TRUE(model.has(0x80000007, 0, 'd', 8)) << "invariant TSC";
  }
}

TEST(CpuModel, PortableModelIsTheSameCpuOnEveryHost) {
  const auto model = make_cpu_model("x86-64-v2", 1);
  if (!model) GTEST_SKIP() << model.error().message;
  EXPECT_EQ(model->lookup(0, 0).ebx, 0x756e6547u);
  EXPECT_FALSE(model->has(1, 0, 'c', 28)) << "AVX is not in v2";
  EXPECT_EQ(model->xcr0_mask, 3u);
  for (const FeatureBit& feature : feature_bits())
    EXPECT_EQ(model->has(feature.leaf, feature.subleaf, feature.reg, feature.bit), feature.level <= Level::kV2)
        << feature.name;
}

TEST(CpuModel, TopologyCountsTheVcpus) {
  for (const unsigned vcpus : {1u, 2u, 3u, 8u})
    for (const CpuModel& model : usable(vcpus)) {
      EXPECT_EQ((model.lookup(1, 0).ebx >> 16) & 0xff, vcpus);
      EXPECT_EQ(model.has(1, 0, 'd', 28), vcpus > 1);
      EXPECT_EQ(model.lookup(0xb, 0).ebx, 1u);
      EXPECT_EQ(model.lookup(0xb, 1).ebx, vcpus);
      EXPECT_GE(1u << model.lookup(0xb, 1).eax, vcpus);
      EXPECT_EQ(model.lookup(0xb, 2).ebx, 0u);
      EXPECT_EQ(model.lookup(0xb, 9).ecx, 9u);
    }
}

TEST(CpuModel, XsaveSizesCoverTheMask) {
  for (const CpuModel& model : usable(1)) {
    u32 end = 576;
    for (u32 i = 2; i < 8; ++i) {
      const CpuidLeaf leaf = model.lookup(0xd, i);
      EXPECT_EQ(leaf.eax != 0, ((model.xcr0_mask >> i) & 1) != 0) << model.name << " " << i;
      end = std::max(end, leaf.eax + leaf.ebx);
    }
    EXPECT_EQ(model.lookup(0xd, 0).ecx, end);
    EXPECT_LE(end, 4096u);
  }
}

// As Linux computes it, in 32 bits.
TEST(CpuModel, Leaf15GivesTheTscRate) {
  const auto model = make_cpu_model("x86-64-v2", 1);
  if (!model) GTEST_SKIP() << model.error().message;
  const CpuidLeaf leaf = model->lookup(0x15, 0);
  const u32 crystal_khz = leaf.ecx / 1000;
  const u32 khz = crystal_khz * leaf.ebx / leaf.eax;
  EXPECT_NEAR(khz, static_cast<double>(model->tsc_hz) / 1000, 10 + static_cast<double>(model->tsc_hz) / 1e9);
}

TEST(HostTsc, IsPlausibleAndStable) {
  EXPECT_GT(host_tsc_hz(), 100'000'000u);
  EXPECT_EQ(host_tsc_hz(), host_tsc_hz());
}

TEST(Engine, EveryKindHasAName) { EXPECT_EQ(engine_name(EngineKind::kDbt), "dbt"); }

}  // namespace
}  // namespace bulkhead::engine
