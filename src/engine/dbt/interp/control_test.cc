#include <gtest/gtest.h>

#include "support/cpu_fixture.h"

namespace bulkhead::engine::dbt {
namespace {

class ControlTest : public testing::Test {
 protected:
  CpuFixture t_;
};

TEST_F(ControlTest, CallPushesAndRetReturns) {
  EXPECT_EQ(t_.run({0xe8, 0x10, 0, 0, 0}), StepResult::kBranch);
  EXPECT_EQ(t_.s().rip, CpuFixture::kCode + 0x15);
  EXPECT_EQ(t_.peek<u64>(CpuFixture::kStack - 8), CpuFixture::kCode + 5);
  EXPECT_EQ(t_.run({0xc2, 0x10, 0}), StepResult::kBranch);
  EXPECT_EQ(t_.s().rip, CpuFixture::kCode + 5);
  EXPECT_EQ(t_.reg(kRsp), CpuFixture::kStack + 0x10);
}

TEST_F(ControlTest, CallToNonCanonicalPushesNothing) {
  t_.reg(kRax) = 0x800000000000;
  t_.poke<u64>(CpuFixture::kStack - 8, 0x77);
  t_.run({0xff, 0xd0});
  EXPECT_EQ(t_.fault_vector(), kGp);
  EXPECT_EQ(t_.saved_rip(true), CpuFixture::kCode);
}

TEST_F(ControlTest, RetToNonCanonicalKeepsTheStack) {
  t_.poke<u64>(CpuFixture::kStack, 0x800000000000);
  t_.run({0xc3});
  EXPECT_EQ(t_.fault_vector(), kGp);
  EXPECT_EQ(t_.peek<u64>(t_.reg(kRsp) + 8 + 24), CpuFixture::kStack);  // the saved RSP
}

TEST_F(ControlTest, CallMemoryWithUnmappedStack) {
  t_.map(CpuFixture::kStack - 0x1000, 0);
  t_.poke<u64>(CpuFixture::kData, CpuFixture::kCode);
  t_.s().gpr[kRbx] = CpuFixture::kData;
  // The handler has no stack either: double fault, and with no IST a triple one.
  EXPECT_EQ(t_.run({0xff, 0x13}), StepResult::kShutdown);
}

TEST_F(ControlTest, JccFollowsItsCondition) {
  for (u8 cc = 0; cc < 16; ++cc) {
    t_.long_mode();
    t_.s().rflags = 2 | kZf;
    t_.run({static_cast<u8>(0x70 + cc), 0x20});
    const bool taken = cc == 1 || cc == 3 || cc == 4 || cc == 6 || cc == 9 || cc == 11 || cc == 13 || cc == 14;
    EXPECT_EQ(t_.s().rip, CpuFixture::kCode + (taken ? 0x22 : 2)) << int{cc};
  }
}

TEST_F(ControlTest, LoopCountsByAddressSize) {
  t_.reg(kRcx) = 0x100000001;
  EXPECT_EQ(t_.run({0x67, 0xe2, 0x10}), StepResult::kNext);  // ECX reaches 0
  EXPECT_EQ(t_.reg(kRcx), 0u);
  t_.long_mode();
  t_.reg(kRcx) = 2;
  t_.s().rflags |= kZf;
  EXPECT_EQ(t_.run({0xe0, 0x10}), StepResult::kNext);  // LOOPNE with ZF
  EXPECT_EQ(t_.reg(kRcx), 1u);
  EXPECT_EQ(t_.run({0xe1, 0x10}), StepResult::kNext);  // LOOPE, count at 0
  t_.reg(kRcx) = 0;
  EXPECT_EQ(t_.run({0xe3, 0x10}), StepResult::kBranch);  // JRCXZ
}

TEST_F(ControlTest, JumpOutsideTheSegment) {
  t_.protected_mode();
  t_.s().seg[kCs].limit = CpuFixture::kCode + 0x100;
  t_.run({0xe9, 0, 0x10, 0, 0});
  EXPECT_EQ(t_.fault_vector(), kGp);
}

TEST_F(ControlTest, SixteenBitJumpTruncates) {
  t_.real_mode();
  t_.s().rip = 0xfff0;
  t_.put(0x4fff0, {0xe9, 0x20, 0x00});
  EXPECT_EQ(step(t_.cpu()), StepResult::kBranch);
  EXPECT_EQ(t_.s().rip, 0x13u);
}

TEST_F(ControlTest, RunningOffTheSegmentFaults) {
  t_.real_mode();
  t_.s().rip = 0xffff;
  t_.put(0x4ffff, {0x90, 0x90});
  EXPECT_EQ(step(t_.cpu()), StepResult::kNext);
  step(t_.cpu());
  EXPECT_EQ(t_.fault_vector(), kGp);
}

TEST_F(ControlTest, Int3AndSoftwareInterruptSaveTheNextRip) {
  t_.run({0xcc});
  EXPECT_EQ(t_.fault_vector(), kBp);
  EXPECT_EQ(t_.saved_rip(false), CpuFixture::kCode + 1);
  t_.long_mode();
  t_.run({0xcd, 0x80});
  EXPECT_EQ(t_.fault_vector(), 0x80u);
  EXPECT_EQ(t_.saved_rip(false), CpuFixture::kCode + 2);
}

TEST_F(ControlTest, UserMayNotRaiseKernelVectors) {
  t_.long_mode(3);
  t_.run({0xcd, 0x80});
  EXPECT_EQ(t_.fault_vector(), kGp);
  EXPECT_EQ(t_.error_code(), 0x80u * 8 + 2);
  EXPECT_EQ(t_.saved_rip(true), CpuFixture::kCode);
}

TEST_F(ControlTest, RealModeInterruptAndIret) {
  t_.real_mode();
  t_.s().rflags |= kIf | kCf;
  t_.run({0xcd, 0x21});
  EXPECT_EQ(t_.fault_vector(), 0x21u);
  EXPECT_EQ(t_.peek<u16>(0x60000 + 0x8000 - 6), 2);
  EXPECT_FALSE(t_.s().rflags & kIf);
  t_.poke<u8>(CpuFixture::kHandlers + 16 * 0x21, 0xcf);
  EXPECT_EQ(step(t_.cpu()), StepResult::kBranch);
  EXPECT_EQ(t_.s().rip, 2u);
  EXPECT_TRUE(t_.s().rflags & kCf);
  t_.poke<u8>(CpuFixture::kHandlers + 16 * 0x21, 0xf4);
}

TEST_F(ControlTest, FarJumpAndFarCall) {
  t_.real_mode();
  t_.run({0xea, 0x34, 0x12, 0x00, 0x20});
  EXPECT_EQ(t_.s().seg[kCs].selector, 0x2000);
  EXPECT_EQ(t_.s().rip, 0x1234u);
  t_.real_mode();
  t_.run({0x9a, 0x34, 0x12, 0x00, 0x20});
  EXPECT_EQ(t_.peek<u16>(0x60000 + 0x8000 - 4), 5);
  EXPECT_EQ(t_.peek<u16>(0x60000 + 0x8000 - 2), 0x4000);
  t_.put(0x21234, {0xcb});
  step(t_.cpu());
  EXPECT_EQ(t_.s().seg[kCs].selector, 0x4000);
  EXPECT_EQ(t_.s().rip, 5u);
}

TEST_F(ControlTest, FarJumpThroughMemoryToCode32) {
  t_.poke<u32>(CpuFixture::kData, static_cast<u32>(CpuFixture::kCode + 0x100));
  t_.poke<u16>(CpuFixture::kData + 4, CpuFixture::kCode32);
  t_.reg(kRbx) = CpuFixture::kData;
  EXPECT_EQ(t_.run({0xff, 0x2b}), StepResult::kBranch);
  EXPECT_EQ(t_.cpu().code_size(), CodeSize::k32);
  EXPECT_EQ(t_.s().rip, CpuFixture::kCode + 0x100);
}

TEST_F(ControlTest, FarJumpToDataIsGpWithTheSelector) {
  t_.poke<u32>(CpuFixture::kData, 0);
  t_.poke<u16>(CpuFixture::kData + 4, CpuFixture::kData32);
  t_.reg(kRbx) = CpuFixture::kData;
  t_.run({0xff, 0x2b});
  EXPECT_EQ(t_.fault_vector(), kGp);
  EXPECT_EQ(t_.error_code(), CpuFixture::kData32);
}

TEST_F(ControlTest, IretqBackToUser) {
  t_.poke<u64>(CpuFixture::kStack, CpuFixture::kCode + 0x80);
  t_.poke<u64>(CpuFixture::kStack + 8, CpuFixture::kUserCode64);
  t_.poke<u64>(CpuFixture::kStack + 16, 0x202);
  t_.poke<u64>(CpuFixture::kStack + 24, CpuFixture::kData);
  t_.poke<u64>(CpuFixture::kStack + 32, CpuFixture::kUserData);
  EXPECT_EQ(t_.run({0x48, 0xcf}), StepResult::kBranch);
  EXPECT_EQ(t_.s().cpl, 3);
  EXPECT_EQ(t_.reg(kRsp), CpuFixture::kData);
  EXPECT_EQ(t_.s().rip, CpuFixture::kCode + 0x80);
}

TEST_F(ControlTest, SyscallAndSysret) {
  t_.long_mode(3);
  t_.s().lstar = CpuFixture::kCode + 0x200;
  t_.s().star = u64{0x18} << 48 | u64{CpuFixture::kCode64} << 32;
  t_.s().sfmask = kIf;
  t_.s().rflags |= kIf;
  EXPECT_EQ(t_.run({0x0f, 0x05}), StepResult::kBranch);
  EXPECT_EQ(t_.s().cpl, 0);
  EXPECT_EQ(t_.s().rip, CpuFixture::kCode + 0x200);
  EXPECT_EQ(t_.reg(kRcx), CpuFixture::kCode + 2);
  EXPECT_FALSE(t_.s().rflags & kIf);
  EXPECT_EQ(t_.run({0x48, 0x0f, 0x07}), StepResult::kBranch);
  EXPECT_EQ(t_.s().cpl, 3);
  EXPECT_EQ(t_.s().rip, CpuFixture::kCode + 2);
  EXPECT_TRUE(t_.s().rflags & kIf);
}

TEST_F(ControlTest, SysretFromUserIsRefused) {
  t_.long_mode(3);
  t_.run({0x48, 0x0f, 0x07});
  EXPECT_EQ(t_.fault_vector(), kGp);
}

TEST_F(ControlTest, BoundOutOfRange) {
  t_.protected_mode();
  t_.poke<u32>(CpuFixture::kData, static_cast<u32>(-5));
  t_.poke<u32>(CpuFixture::kData + 4, 10);
  t_.reg(kRbx) = CpuFixture::kData;
  t_.reg(kRax) = 0xfffffffb;
  EXPECT_EQ(t_.run({0x62, 0x03}), StepResult::kNext);
  t_.protected_mode();
  t_.reg(kRax) = 11;
  t_.run({0x62, 0x03});
  EXPECT_EQ(t_.fault_vector(), kBr);
}

TEST_F(ControlTest, IntoOnlyWithOverflow) {
  t_.protected_mode();
  EXPECT_EQ(t_.run({0xce}), StepResult::kNext);
  t_.protected_mode();
  t_.s().rflags |= kOf;
  t_.run({0xce});
  EXPECT_EQ(t_.fault_vector(), kOfVector);
}

// ---- fetch
TEST_F(ControlTest, InstructionAcrossPages) {
  t_.s().rip = 0x401ffe;
  t_.put(0x401ffe, {0x48, 0x05, 0x10, 0, 0, 0});
  EXPECT_EQ(step(t_.cpu()), StepResult::kNext);
  EXPECT_EQ(t_.s().rip, 0x402004u);
}
TEST_F(ControlTest, InstructionAcrossAMissingPageFaultsThere) {
  t_.map(0x402000, 0);
  t_.s().rip = 0x401ffe;
  t_.put(0x401ffe, {0x48, 0x05});
  step(t_.cpu());
  EXPECT_EQ(t_.fault_vector(), kPageFault);
  EXPECT_EQ(t_.s().cr2, 0x402000u);
  EXPECT_EQ(t_.saved_rip(true), 0x401ffeu);
}
TEST_F(ControlTest, InstructionThatEndsBeforeAMissingPageRuns) {
  t_.map(0x402000, 0);
  t_.s().rip = 0x401fff;
  t_.put(0x401fff, {0x90});
  EXPECT_EQ(step(t_.cpu()), StepResult::kNext);
}
TEST_F(ControlTest, SixteenBytesAreGp) {
  t_.run({0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90});
  EXPECT_EQ(t_.fault_vector(), kGp);
}
TEST_F(ControlTest, NoExecutePage) {
  t_.map(0x403000, u64{1} << 63 | 7);
  t_.s().rip = 0x403000;
  step(t_.cpu());
  EXPECT_EQ(t_.fault_vector(), kPageFault);
  EXPECT_EQ(t_.error_code(), 0x11u);
}
TEST_F(ControlTest, ModifiedCodeIsDecodedAfresh) {
  EXPECT_EQ(t_.run({0xb0, 0x01}), StepResult::kNext);
  EXPECT_EQ(static_cast<u8>(t_.reg(kRax)), 1);
  t_.s().rip = CpuFixture::kCode;
  EXPECT_EQ(t_.run({0xb0, 0x02}), StepResult::kNext);
  EXPECT_EQ(static_cast<u8>(t_.reg(kRax)), 2);
}
TEST_F(ControlTest, TheSameBytesInAnotherMode) {
  const std::initializer_list<u8> code{0xb8, 0x01, 0x00, 0xff, 0xff};
  t_.protected_mode();
  t_.run(code);
  EXPECT_EQ(t_.reg(kRax), 0xffff0001u);
  t_.protected_mode(0, true);
  t_.run(code);
  EXPECT_EQ(t_.reg(kRax), 0xffff0001u);
  EXPECT_EQ(t_.s().rip, CpuFixture::kCode + 3);
}

}  // namespace
}  // namespace bulkhead::engine::dbt
