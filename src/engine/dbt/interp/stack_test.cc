#include <gtest/gtest.h>

#include "support/cpu_fixture.h"

namespace bulkhead::engine::dbt {
namespace {

class StackTest : public testing::Test {
 protected:
  CpuFixture t_;
};

TEST_F(StackTest, PushOfEveryForm) {
  t_.reg(kRax) = 0x1122334455667788;
  t_.run({0x50});
  EXPECT_EQ(t_.peek<u64>(CpuFixture::kStack - 8), 0x1122334455667788u);
  t_.run({0x66, 0x50});
  EXPECT_EQ(t_.reg(kRsp), CpuFixture::kStack - 10);
  t_.run({0x6a, 0xff});
  EXPECT_EQ(t_.peek<u64>(t_.reg(kRsp)), ~u64{0});
  t_.run({0x68, 0x00, 0x00, 0x00, 0x80});
  EXPECT_EQ(t_.peek<u64>(t_.reg(kRsp)), 0xffffffff80000000u);
  t_.run({0x54});  // push rsp: the old value
  EXPECT_EQ(t_.peek<u64>(t_.reg(kRsp)), t_.reg(kRsp) + 8);
  t_.run({0x0f, 0xa0});  // push fs
  EXPECT_EQ(t_.peek<u64>(t_.reg(kRsp)), t_.s().seg[kFs].selector);
}

TEST_F(StackTest, PushToReadOnlyPageChangesNothing) {
  t_.long_mode(3);
  t_.map(CpuFixture::kStack - 0x1000, 5);
  t_.run({0x50});
  EXPECT_EQ(t_.fault_vector(), kPageFault);
  EXPECT_EQ(t_.error_code(), 7u);
  EXPECT_EQ(t_.peek<u64>(t_.reg(kRsp) + 8 + 24), CpuFixture::kStack);
}

TEST_F(StackTest, PopMemoryUsesTheNewRsp) {
  t_.poke<u64>(CpuFixture::kStack, 0x77);
  t_.run({0x8f, 0x44, 0x24, 0x10});  // pop [rsp+16]
  EXPECT_EQ(t_.peek<u64>(CpuFixture::kStack + 8 + 16), 0x77u);
  EXPECT_EQ(t_.reg(kRsp), CpuFixture::kStack + 8);
}

TEST_F(StackTest, PopMemoryThatFaultsKeepsRsp) {
  t_.map(CpuFixture::kData, 0);
  t_.reg(kRbx) = CpuFixture::kData;
  t_.run({0x8f, 0x03});
  EXPECT_EQ(t_.fault_vector(), kPageFault);
  EXPECT_EQ(t_.peek<u64>(t_.reg(kRsp) + 8 + 24), CpuFixture::kStack);
}

TEST_F(StackTest, PopRsp) {
  t_.poke<u64>(CpuFixture::kStack, 0x1234);
  t_.run({0x5c});
  EXPECT_EQ(t_.reg(kRsp), 0x1234u);
}

TEST_F(StackTest, PushaPopa) {
  t_.protected_mode();
  for (unsigned i = 0; i < 8; ++i)
    if (i != kRsp) t_.s().gpr[i] = 0x11111111u * i;
  t_.run({0x60});
  EXPECT_EQ(t_.peek<u32>(CpuFixture::kStack - 4), 0u);
  EXPECT_EQ(t_.peek<u32>(CpuFixture::kStack - 20), CpuFixture::kStack);
  EXPECT_EQ(t_.peek<u32>(CpuFixture::kStack - 32), 0x77777777u);
  for (unsigned i = 0; i < 8; ++i)
    if (i != kRsp) t_.s().gpr[i] = 0;
  t_.run({0x61});
  EXPECT_EQ(t_.reg(kRsi), 0x66666666u);
  EXPECT_EQ(t_.reg(kRsp), CpuFixture::kStack);
}

TEST_F(StackTest, PushfHidesVmAndRf) {
  t_.s().rflags = 2 | kRf | kCf | kIf;
  t_.run({0x9c});
  EXPECT_EQ(t_.peek<u64>(CpuFixture::kStack - 8), 2 | kCf | kIf);
}

TEST_F(StackTest, PopfInUserKeepsIfAndIopl) {
  t_.long_mode(3);
  t_.s().rflags = 0x202;
  t_.poke<u64>(CpuFixture::kStack, 0x3000 | kCf | kAc);
  t_.run({0x9d});
  EXPECT_EQ(t_.s().rflags, 0x202 | kCf | kAc);
}

TEST_F(StackTest, PopfInKernelSetsIf) {
  t_.poke<u64>(CpuFixture::kStack, kIf | 0x3000);
  EXPECT_EQ(t_.run({0x9d}), StepResult::kBranch);
  EXPECT_EQ(t_.s().rflags, kIf | 0x3000 | 2);
}

TEST_F(StackTest, Popf16LeavesTheUpperHalf) {
  t_.s().rflags = 2 | kAc;
  t_.refresh();
  t_.poke<u16>(CpuFixture::kStack, kCf);
  t_.run({0x66, 0x9d});
  EXPECT_EQ(t_.s().rflags, 2 | kAc | kCf);
  EXPECT_EQ(t_.reg(kRsp), CpuFixture::kStack + 2);
}

TEST_F(StackTest, EnterAndLeave) {
  t_.reg(kRbp) = 0x1234;
  t_.run({0xc8, 0x20, 0x00, 0x00});
  EXPECT_EQ(t_.reg(kRbp), CpuFixture::kStack - 8);
  EXPECT_EQ(t_.reg(kRsp), CpuFixture::kStack - 8 - 0x20);
  EXPECT_EQ(t_.peek<u64>(CpuFixture::kStack - 8), 0x1234u);
  t_.run({0xc9});
  EXPECT_EQ(t_.reg(kRbp), 0x1234u);
  EXPECT_EQ(t_.reg(kRsp), CpuFixture::kStack);
}

TEST_F(StackTest, NestedEnterCopiesTheDisplay) {
  t_.protected_mode();
  t_.reg(kRbp) = CpuFixture::kData + 0x100;
  t_.poke<u32>(CpuFixture::kData + 0xfc, 0xaaaa);
  t_.run({0xc8, 0x04, 0x00, 0x02});
  EXPECT_EQ(t_.peek<u32>(CpuFixture::kStack - 4), CpuFixture::kData + 0x100);
  EXPECT_EQ(t_.peek<u32>(CpuFixture::kStack - 8), 0xaaaau);
  EXPECT_EQ(t_.peek<u32>(CpuFixture::kStack - 12), CpuFixture::kStack - 4);
  EXPECT_EQ(t_.reg(kRsp), CpuFixture::kStack - 16);
}

TEST_F(StackTest, EnterWithNoRoomChangesNothing) {
  t_.map(CpuFixture::kStack - 0x2000, 0);
  t_.reg(kRbp) = 7;
  const u64 frame_pages = 0x1800;
  t_.run({0xc8, frame_pages & 0xff, frame_pages >> 8, 0x00});
  EXPECT_EQ(t_.fault_vector(), kPageFault);
  EXPECT_EQ(t_.reg(kRbp), 7u);
}

TEST_F(StackTest, SixteenBitStackWraps) {
  t_.real_mode();
  t_.reg(kRsp) = 0xabcd0000;
  t_.reg(kRax) = 0x1234;
  t_.run({0x50});
  EXPECT_EQ(t_.reg(kRsp), 0xabcdfffeu);
  EXPECT_EQ(t_.peek<u16>(0x6fffe), 0x1234);
}

TEST_F(StackTest, PopSsHoldsInterruptsForOneInstruction) {
  t_.protected_mode();
  t_.poke<u32>(CpuFixture::kStack, CpuFixture::kData32);
  t_.run({0x17});
  EXPECT_TRUE(t_.s().interrupt_shadow);
  EXPECT_EQ(t_.reg(kRsp), CpuFixture::kStack + 4);
  t_.run({0x90});
  EXPECT_FALSE(t_.s().interrupt_shadow);
}

TEST_F(StackTest, PopBadSelectorKeepsEverything) {
  t_.protected_mode();
  t_.poke<u32>(CpuFixture::kStack, 0x7f8);
  t_.run({0x1f});  // pop ds
  EXPECT_EQ(t_.fault_vector(), kGp);
  EXPECT_EQ(t_.error_code(), 0x7f8u);
  EXPECT_EQ(t_.s().seg[kDs].selector, CpuFixture::kData32);
}

}  // namespace
}  // namespace bulkhead::engine::dbt
