#include "abi/xen/pvh_interface.h"

#include <gtest/gtest.h>
#include <xen/arch-x86/cpuid.h>
#include <xen/xen.h>

#include <algorithm>

namespace bulkhead::abi::xen {
namespace {

engine::CpuModel small_model() {
  return {.name = "test",
          .leaves = {{0, 0, 1, 0x68747541, 0x444d4163, 0x69746e65},
                     {1, 0, 0, 0, 0, 0},
                     {0x80000000, 0, 0x80000000, 0, 0, 0}},
          .tsc_hz = 2'600'000'000};
}

TEST(XenLeaves, AreFoundAsLinuxLooks) {
  const engine::CpuModel model = with_xen_leaves(small_model(), 5);
  const auto head = model.lookup(0x40000000, 0);
  EXPECT_EQ(head.eax, 0x40000005u);
  EXPECT_EQ(head.ebx, u32{XEN_CPUID_SIGNATURE_EBX});
  EXPECT_EQ(head.ecx, u32{XEN_CPUID_SIGNATURE_ECX});
  EXPECT_EQ(head.edx, u32{XEN_CPUID_SIGNATURE_EDX});
  EXPECT_EQ(model.lookup(0x40000001, 0).eax, 4u << 16 | 17);
  EXPECT_EQ(model.lookup(0x40000002, 0).ebx, kHypercallPageMsr);
  EXPECT_EQ(model.lookup(0x40000003, 0).ecx, 2'600'000u);
  EXPECT_EQ(model.lookup(0x40000004, 0).ecx, 5u);
  EXPECT_EQ(model.vcpu_number_leaf, 0x40000004u);
  EXPECT_TRUE(model.has(1, 0, 'c', 31));
  EXPECT_EQ(model.lookup(0x40000100, 0).eax, 0u);
  EXPECT_TRUE(std::ranges::is_sorted(model.leaves, {}, [](const auto& l) { return std::pair{l.leaf, l.subleaf}; }));
}

TEST(XenLeaves, AddedTwiceAreThereOnce) {
  const auto once = with_xen_leaves(small_model(), 1);
  EXPECT_EQ(with_xen_leaves(once, 1).leaves.size(), once.leaves.size());
}

TEST(HypercallPage, HasAnEntryForEachNumber) {
  for (const u8 last : {u8{0xc1}, u8{0xd9}}) {
    const u8 call[] = {0x0f, 0x01, last};
    const auto page = hypercall_page(call);
    const auto byte = [&](unsigned at) { return std::to_integer<u8>(page[at]); };
    for (unsigned number = 0; number < 128; ++number) {
      if (number == __HYPERVISOR_iret) {
        EXPECT_EQ(byte(number * 32), 0x0f);
        EXPECT_EQ(byte(number * 32 + 1), 0x0b);
        continue;
      }
      EXPECT_EQ(byte(number * 32), 0xb8);
      EXPECT_EQ(byte(number * 32 + 1), number);
      EXPECT_EQ(byte(number * 32 + 7), last);
      EXPECT_EQ(byte(number * 32 + 8), 0xc3);
    }
  }
}

}  // namespace
}  // namespace bulkhead::abi::xen
