#include <gtest/gtest.h>

#include "support/cpu_fixture.h"

namespace bulkhead::engine::dbt {
namespace {

class StringTest : public testing::Test {
 protected:
  CpuFixture t_;
  void registers(u64 source, u64 dest, u64 count) {
    t_.reg(kRsi) = source;
    t_.reg(kRdi) = dest;
    t_.reg(kRcx) = count;
  }
  std::string text(u64 at, std::size_t length) {
    std::string out(length, 0);
    EXPECT_TRUE(t_.memory.read(Gpa{at}, std::as_writable_bytes(std::span{out})));
    return out;
  }
  void put_text(u64 at, std::string_view what) {
    ASSERT_TRUE(t_.memory.write(Gpa{at}, std::as_bytes(std::span{what})));
  }
};

TEST_F(StringTest, MovsbOnce) {
  put_text(CpuFixture::kData, "ab");
  registers(CpuFixture::kData, CpuFixture::kData + 64, 7);
  EXPECT_EQ(t_.run({0xa4}), StepResult::kNext);
  EXPECT_EQ(text(CpuFixture::kData + 64, 1), "a");
  EXPECT_EQ(t_.reg(kRsi), CpuFixture::kData + 1);
  EXPECT_EQ(t_.reg(kRdi), CpuFixture::kData + 65);
  EXPECT_EQ(t_.reg(kRcx), 7u);
}

TEST_F(StringTest, RepMovsqAcrossPages) {
  std::string pattern;
  for (int i = 0; i < 10000; ++i) pattern.push_back(static_cast<char>(i * 7));
  put_text(CpuFixture::kData + 3, pattern);
  registers(CpuFixture::kData + 3, CpuFixture::kData + 0x8005, 1250);
  EXPECT_EQ(t_.run({0xf3, 0x48, 0xa5}), StepResult::kNext);
  EXPECT_EQ(text(CpuFixture::kData + 0x8005, 10000), pattern);
  EXPECT_EQ(t_.reg(kRcx), 0u);
  EXPECT_EQ(t_.reg(kRsi), CpuFixture::kData + 3 + 10000);
}

TEST_F(StringTest, RepMovsbOverlapRepeatsThePattern) {
  put_text(CpuFixture::kData, "xyz");
  registers(CpuFixture::kData, CpuFixture::kData + 3, 30);
  t_.run({0xf3, 0xa4});
  EXPECT_EQ(text(CpuFixture::kData, 12), "xyzxyzxyzxyz");
}

TEST_F(StringTest, RepMovsBackwards) {
  std::string pattern;
  for (int i = 0; i < 6000; ++i) pattern.push_back(static_cast<char>(i * 11));
  put_text(CpuFixture::kData, pattern);
  registers(CpuFixture::kData + 5999, CpuFixture::kData + 6003, 6000);
  t_.s().rflags |= kDf;
  while (t_.run({0xf3, 0xa4}) == StepResult::kBranch) {
  }
  EXPECT_EQ(text(CpuFixture::kData + 4, 6000), pattern);
  EXPECT_EQ(t_.reg(kRdi), CpuFixture::kData + 3);
}

TEST_F(StringTest, LongRepetitionLetsInterruptsIn) {
  registers(CpuFixture::kData, CpuFixture::kData + 0x10000, 6000);
  EXPECT_EQ(t_.run({0xf3, 0xa4}), StepResult::kBranch);
  EXPECT_EQ(t_.s().rip, CpuFixture::kCode);
  EXPECT_EQ(t_.reg(kRcx), 6000u - 4096);
  EXPECT_EQ(step(t_.cpu()), StepResult::kNext);
  EXPECT_EQ(t_.reg(kRcx), 0u);
}

TEST_F(StringTest, ZeroCountDoesNotTouchMemory) {
  registers(0x123456789abcdef0, 0xfedcba9876543210, 0);
  EXPECT_EQ(t_.run({0xf3, 0xa4}), StepResult::kNext);
  EXPECT_EQ(t_.s().rip, CpuFixture::kCode + 2);
}

TEST_F(StringTest, FaultInTheMiddleKeepsWhatWasDone) {
  t_.map(CpuFixture::kData + 0x1000, 0);
  registers(0, CpuFixture::kData + 0xff0, 100);
  t_.reg(kRax) = 0x55;
  t_.run({0xf3, 0xaa});
  EXPECT_EQ(t_.fault_vector(), kPageFault);
  EXPECT_EQ(t_.error_code(), 2u);
  EXPECT_EQ(t_.saved_rip(true), CpuFixture::kCode);
  EXPECT_EQ(t_.s().cr2, CpuFixture::kData + 0x1000);
  EXPECT_EQ(t_.reg(kRcx), 84u);
  EXPECT_EQ(t_.reg(kRdi), CpuFixture::kData + 0x1000);
  EXPECT_EQ(t_.peek<u8>(CpuFixture::kData + 0xfff), 0x55);
}

TEST_F(StringTest, RepneScasbFindsTheEnd) {
  put_text(CpuFixture::kData + 0xff8, std::string("hello, long world\0", 18));
  registers(0, CpuFixture::kData + 0xff8, ~u64{0});
  t_.reg(kRax) = 0;
  EXPECT_EQ(t_.run({0xf2, 0xae}), StepResult::kNext);
  EXPECT_EQ(t_.reg(kRcx), ~u64{0} - 18);
  EXPECT_TRUE(t_.s().rflags & kZf);
}

TEST_F(StringTest, RepeCmpsStopsAtTheDifference) {
  put_text(CpuFixture::kData, "abcdX");
  put_text(CpuFixture::kData + 64, "abcdY");
  registers(CpuFixture::kData, CpuFixture::kData + 64, 5);
  t_.run({0xf3, 0xa6});
  EXPECT_EQ(t_.reg(kRcx), 0u);
  EXPECT_FALSE(t_.s().rflags & kZf);
  EXPECT_TRUE(t_.s().rflags & kCf);
}

TEST_F(StringTest, AddressSize32WrapsAndZeroExtends) {
  registers(0xffffffff00000000 | CpuFixture::kData, 0xffffffff00000000 | (CpuFixture::kData + 64), 0xffffffff00000002);
  put_text(CpuFixture::kData, "ab");
  EXPECT_EQ(t_.run({0x67, 0xf3, 0xa4}), StepResult::kNext);
  EXPECT_EQ(text(CpuFixture::kData + 64, 2), "ab");
  EXPECT_EQ(t_.reg(kRcx), 0u);
  EXPECT_EQ(t_.reg(kRsi), CpuFixture::kData + 2);
}

TEST_F(StringTest, F2IsRepForMovs) {
  registers(CpuFixture::kData, CpuFixture::kData + 64, 3);
  t_.run({0xf2, 0xa4});
  EXPECT_EQ(t_.reg(kRcx), 0u);
}

TEST_F(StringTest, RealModeWrapsAt64K) {
  t_.real_mode();
  registers(0xffff, 0xfffe, 4);
  t_.poke<u8>(0x5ffff, 0x11);
  t_.poke<u8>(0x50000, 0x22);
  t_.poke<u8>(0x50001, 0x33);
  t_.run({0xf3, 0xa4});
  EXPECT_EQ(t_.reg(kRsi), 3u);
  EXPECT_EQ(t_.reg(kRdi), 2u);
  EXPECT_EQ(t_.peek<u8>(0x5fffe), 0x11);
  EXPECT_EQ(t_.peek<u8>(0x5ffff), 0x22);
}

TEST_F(StringTest, SegmentLimitEndsARepetition) {
  t_.protected_mode();
  t_.s().seg[kEs].limit = CpuFixture::kData + 9;
  registers(0, CpuFixture::kData, 20);
  t_.run({0xf3, 0xaa});
  EXPECT_EQ(t_.fault_vector(), kGp);
  EXPECT_EQ(t_.reg(kRcx), 10u);
}

TEST_F(StringTest, RepOutsIsOneExitAnIteration) {
  put_text(CpuFixture::kData, "xyz");
  registers(CpuFixture::kData, 0, 3);
  t_.reg(kRdx) = 0xe9;
  t_.put(CpuFixture::kCode, {0xf3, 0x6e});
  for (const char expected : std::string_view("xyz")) {
    ASSERT_EQ(step(t_.cpu()), StepResult::kExit);
    const auto& port = std::get<PortExit>(t_.cpu().exit);
    EXPECT_EQ(port.value, static_cast<u64>(expected));
    EXPECT_TRUE(port.write);
    t_.cpu().take_answer();
  }
  EXPECT_EQ(step(t_.cpu()), StepResult::kNext);
  EXPECT_EQ(t_.reg(kRcx), 0u);
}

TEST_F(StringTest, InsToReadOnlyPageFaultsBeforeThePortIsRead) {
  t_.map(CpuFixture::kData, 5);
  registers(0, CpuFixture::kData, 1);
  t_.reg(kRdx) = 0x60;
  EXPECT_EQ(t_.run({0x6c}), StepResult::kBranch);
  EXPECT_EQ(t_.fault_vector(), kPageFault);
}

TEST_F(StringTest, RepInsStoresTheAnswers) {
  registers(0, CpuFixture::kData, 2);
  t_.reg(kRdx) = 0x60;
  t_.put(CpuFixture::kCode, {0xf3, 0x6d});
  for (const u64 value : {0x11223344u, 0x55667788u}) {
    ASSERT_EQ(step(t_.cpu()), StepResult::kExit);
    std::get<PortExit>(t_.cpu().exit).value = value;
    t_.cpu().take_answer();
  }
  EXPECT_EQ(step(t_.cpu()), StepResult::kNext);
  EXPECT_EQ(t_.peek<u64>(CpuFixture::kData), 0x5566778811223344u);
}

}  // namespace
}  // namespace bulkhead::engine::dbt
