// 16- and 32-bit modes, compatibility mode, virtual-8086 mode, BCD.
#include <gtest/gtest.h>

#include "engine/dbt/interp/undefined_flags.h"
#include "support/cpu_fixture.h"

namespace bulkhead::engine::dbt {
namespace {

class LegacyTest : public testing::Test {
 protected:
  CpuFixture t_;
  // Protected mode, AX and flags in; AX out.
  u16 adjust(std::initializer_list<u8> code, u16 ax, u64 flags) {
    t_.protected_mode();
    t_.reg(kRax) = 0x12340000 | ax;
    t_.s().rflags = 2 | flags;
    t_.run(code);
    EXPECT_EQ(t_.reg(kRax) >> 16, 0x1234u);
    return static_cast<u16>(t_.reg(kRax));
  }
  bool flag(u64 bit) { return t_.s().rflags & bit; }
};

TEST_F(LegacyTest, DecimalAdjust) {
  EXPECT_EQ(adjust({0x27}, 0x79 + 0x35, 0), 0x14);  // daa of ae
  EXPECT_TRUE(flag(kCf) && flag(kAf));
  EXPECT_EQ(adjust({0x27}, 0x12, kAf), 0x18);
  EXPECT_FALSE(flag(kCf));
  EXPECT_EQ(adjust({0x27}, 0x9a, 0), 0x00);
  EXPECT_TRUE(flag(kZf));
  EXPECT_EQ(adjust({0x2f}, 0x35 - 0x47 + 0x100, kCf | kAf), 0x88);  // das
  EXPECT_TRUE(flag(kCf) && flag(kAf) && flag(kSf));
  EXPECT_EQ(adjust({0x2f}, 0x05, kAf), 0xff);
  EXPECT_TRUE(flag(kCf));
}

TEST_F(LegacyTest, AsciiAdjust) {
  EXPECT_EQ(adjust({0x37}, 0x000b, 0), 0x0101);
  EXPECT_TRUE(flag(kCf) && flag(kAf));
  EXPECT_EQ(adjust({0x37}, 0x0f05, 0), 0x0f05);
  EXPECT_FALSE(flag(kCf));
  EXPECT_EQ(adjust({0x3f}, 0x02ff, kAf), 0x0109);
  EXPECT_EQ(adjust({0xd4, 0x0a}, 0x3f, 0), 0x0603);
  EXPECT_EQ(adjust({0xd5, 0x0a}, 0x0603, 0), 0x3f);
  EXPECT_EQ(adjust({0xd6}, 0x1234, kCf), 0x12ff);  // salc
}

TEST_F(LegacyTest, AamByZeroIsDe) {
  t_.protected_mode();
  t_.run({0xd4, 0x00});
  EXPECT_EQ(t_.fault_vector(), kDe);
}

TEST_F(LegacyTest, SixteenBitAddressing) {
  t_.real_mode();
  t_.reg(kRbx) = 0xffff;
  t_.reg(kRsi) = 0x0011;
  t_.poke<u16>(0x50000 + 0x0020, 0xbeef);
  t_.run({0x8b, 0x40, 0x10});  // mov ax, [bx+si+0x10], which wraps
  EXPECT_EQ(t_.reg(kRax), 0xbeefu);
}

TEST_F(LegacyTest, BpAddressesTheStack) {
  t_.real_mode();
  t_.reg(kRbp) = 0x100;
  t_.poke<u16>(0x60104, 0x4321);
  t_.run({0x8b, 0x46, 0x04});
  EXPECT_EQ(t_.reg(kRax), 0x4321u);
}

TEST_F(LegacyTest, WordBeyondTheSegmentIsGp) {
  t_.real_mode();
  t_.reg(kRbx) = 0xffff;
  t_.run({0x8b, 0x07});
  EXPECT_EQ(t_.fault_vector(), kGp);
}

TEST_F(LegacyTest, LoadFarPointer) {
  t_.real_mode();
  t_.reg(kRbx) = 0x10;
  t_.poke<u16>(0x50010, 0x1111);
  t_.poke<u16>(0x50012, 0x2222);
  t_.run({0xc4, 0x0f});  // les cx, [bx]
  EXPECT_EQ(t_.reg(kRcx), 0x1111u);
  EXPECT_EQ(t_.s().seg[kEs].base, 0x22220u);
}

TEST_F(LegacyTest, LoadFarPointerWithABadSelectorKeepsTheRegister) {
  t_.protected_mode();
  t_.reg(kRbx) = CpuFixture::kData;
  t_.reg(kRcx) = 5;
  t_.poke<u16>(CpuFixture::kData + 4, 0x7f8);
  t_.run({0xc4, 0x0b});
  EXPECT_EQ(t_.fault_vector(), kGp);
  EXPECT_EQ(t_.reg(kRcx), 5u);
}

TEST_F(LegacyTest, WriteToReadOnlySegmentIsGp) {
  t_.protected_mode();
  t_.reg(kRax) = CpuFixture::kReadOnlyData;
  EXPECT_EQ(t_.run({0x8e, 0xd8}), StepResult::kBranch);
  t_.reg(kRbx) = CpuFixture::kData;
  t_.run({0x89, 0x03});
  EXPECT_EQ(t_.fault_vector(), kGp);
}

TEST_F(LegacyTest, EnterProtectedModeFromRealMode) {
  t_.real_mode();
  t_.s().gdtr = {0x5000, 0x7f};
  t_.reg(kRax) = kCr0Pe | kCr0Et;
  EXPECT_EQ(t_.run({0x0f, 0x22, 0xc0}), StepResult::kBranch);
  EXPECT_TRUE(t_.cpu().protected_mode());
  t_.run({0x66, 0xea, 0x00, 0x01, 0x40, 0x00, 0x18, 0x00});  // jmp far 18:00400100
  EXPECT_EQ(t_.cpu().code_size(), CodeSize::k32);
  EXPECT_EQ(t_.s().rip, 0x400100u);
}

TEST_F(LegacyTest, CompatibilityModeTruncatesAddresses) {
  t_.compatibility_mode();
  t_.reg(kRbx) = 0xffffffff00000000 | CpuFixture::kData;
  t_.poke<u32>(CpuFixture::kData, 0x1234);
  EXPECT_EQ(t_.run({0x8b, 0x03}), StepResult::kNext);
  EXPECT_EQ(t_.reg(kRax), 0x1234u);
  t_.run({0x40});  // inc eax, not REX
  EXPECT_EQ(t_.reg(kRax), 0x1235u);
}

TEST_F(LegacyTest, ArplRaisesTheRpl) {
  t_.protected_mode();
  t_.reg(kRax) = 0x10;
  t_.reg(kRcx) = 3;
  t_.run({0x63, 0xc8});  // arpl ax, cx
  EXPECT_EQ(t_.reg(kRax), 0x13u);
  EXPECT_TRUE(flag(kZf));
}

TEST_F(LegacyTest, Virtual8086ModeNeedsIopl) {
  for (const std::initializer_list<u8> code :
       {std::initializer_list<u8>{0xfa}, {0x9c}, {0x9d}, {0xcd, 0x21}, {0xcf}, {0xf4}}) {
    t_.protected_mode(3);
    t_.s().rflags = 2 | kVm;
    for (Segment& segment : t_.s().seg) segment = {0x5000, 0xf3, 0xffff, 0x50000};
    t_.s().rip = 0;
    t_.poke<u16>(0x7008, CpuFixture::kData32);  // SS0
    t_.refresh();
    t_.run(code);
    EXPECT_EQ(t_.fault_vector(), kGp) << int{*code.begin()};
    EXPECT_EQ(t_.s().cpl, 0);
  }
}

TEST_F(LegacyTest, VexIntegerInstructionsNeedProtectedMode) {
  t_.real_mode();
  t_.run({0xc4, 0xe2, 0x70, 0xf2, 0xc2});  // andn eax, ecx, edx
  EXPECT_EQ(t_.fault_vector(), kUd);
}

TEST(UndefinedFlags, KnowsCounts) {
  const auto of = [](std::vector<u8> bytes) {
    Insn insn;
    EXPECT_EQ(decode(CodeSize::k64, bytes, insn), DecodeStatus::kOk);
    return undefined_flags(insn);
  };
  EXPECT_EQ(of({0x01, 0xc8}), 0u);
  EXPECT_EQ(of({0x21, 0xc8}), kAf);
  EXPECT_EQ(of({0xd1, 0xe0}), kAf);
  EXPECT_EQ(of({0xc1, 0xe0, 0x05}), kAf | kOf);
  EXPECT_EQ(of({0xc0, 0xe0, 0x09}), kAf | kOf | kCf);
  EXPECT_EQ(of({0xf7, 0xf1}), kArithmeticFlags);
}

}  // namespace
}  // namespace bulkhead::engine::dbt
