#include "abi/kvm/kvm_leaves.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace bulkhead::abi::kvm {
namespace {

engine::CpuModel small_model() {
  engine::CpuModel model;
  model.leaves = {{0, 0, 0xd, 0, 0, 0},
                  {1, 0, 0, 0, 0, 0},
                  {0x40000000, 0, 0x40000010, 1, 2, 3},
                  {0x40000010, 0, 1, 1, 0, 0},
                  {0x80000000, 0, 0x80000008, 0, 0, 0}};
  return model;
}

TEST(KvmLeaves, AreFoundAndNobodyElses) {
  const auto model = with_kvm_leaves(small_model());
  const auto head = model.lookup(0x40000000, 0);
  EXPECT_EQ(head.eax, 0x40000001u);
  EXPECT_EQ(head.ebx, 0x4b4d564bu);
  EXPECT_TRUE(model.has(1, 0, 'c', 31));
  EXPECT_EQ(model.lookup(0x40000010, 0).eax, 0u);
  EXPECT_TRUE(std::ranges::is_sorted(model.leaves, {}, &engine::CpuidLeaf::leaf));
}

TEST(KvmLeaves, PromiseNoAsynchronousPageFaults) {
  const auto features = with_kvm_leaves(small_model()).lookup(0x40000001, 0).eax;
  EXPECT_EQ(features & (1u << 4 | 1u << 10 | 1u << 14), 0u);
  EXPECT_NE(features & 1u << 3, 0u);
}

TEST(KvmLeaves, AddedTwiceAreThereOnce) {
  const auto once = with_kvm_leaves(small_model());
  EXPECT_EQ(with_kvm_leaves(once).leaves.size(), once.leaves.size());
}

}  // namespace
}  // namespace bulkhead::abi::kvm
