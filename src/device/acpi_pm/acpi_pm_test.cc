#include "device/acpi_pm/acpi_pm.h"

#include <gtest/gtest.h>

#include "device/testing/hostile.h"
#include "spec/acpi.h"

namespace bulkhead::device {
namespace {

struct AcpiPmTest : ::testing::Test {
  FakeClock clock;
  testing::FakeLine sci;
  int offs = 0;
  AcpiPm pm{clock, sci, [this] { ++offs; }};

  static constexpr u64 kControl = 0, kStatus = 4, kEnable = 6, kTimer = 8;
  u64 in(u64 offset, AccessSize size) { return pm.read(offset, size).value; }
  void advance_to_tick(u64 tick) {
    clock.advance((tick * 1'000'000'000 + spec::acpi::kPmTimerHz - 1) / spec::acpi::kPmTimerHz - clock.now());
  }
};

TEST_F(AcpiPmTest, TimerCountsAtItsRate) {
  EXPECT_EQ(in(kTimer, AccessSize::k4), 0u);
  clock.advance(1'000'000'000);
  EXPECT_EQ(in(kTimer, AccessSize::k4), spec::acpi::kPmTimerHz);
  EXPECT_EQ(in(kTimer, AccessSize::k1), spec::acpi::kPmTimerHz & 0xff);
  EXPECT_EQ(in(kTimer + 2, AccessSize::k2), spec::acpi::kPmTimerHz >> 16);
}

TEST_F(AcpiPmTest, TimerOverflowSetsStatusAndInterrupts) {
  pm.write(kEnable, spec::acpi::kPmTimerStatus, AccessSize::k2);
  EXPECT_EQ(in(kStatus, AccessSize::k2), 0u);
  advance_to_tick(u64{1} << 31);
  EXPECT_EQ(in(kStatus, AccessSize::k2), 1u);
  EXPECT_TRUE(sci.level);
  pm.write(kStatus, 1, AccessSize::k2);
  EXPECT_EQ(in(kStatus, AccessSize::k2), 0u);
  EXPECT_FALSE(sci.level);
}

TEST_F(AcpiPmTest, WritingTheEnableRegisterLeavesStatusAlone) {
  advance_to_tick(u64{1} << 31);
  EXPECT_EQ(in(kStatus, AccessSize::k2), 1u);
  pm.write(kEnable, 0xffff, AccessSize::k2);
  EXPECT_EQ(in(kStatus, AccessSize::k2), 1u);
}

TEST_F(AcpiPmTest, SleepTypeS5PowersOffOnce) {
  EXPECT_EQ(in(kControl, AccessSize::k2), spec::acpi::kSciEnable);
  pm.write(kControl, 5 << 10, AccessSize::k2);
  EXPECT_EQ(offs, 0);
  pm.write(kControl, 5 << 10 | 1 << 13, AccessSize::k2);
  pm.write(kControl, 5 << 10 | 1 << 13, AccessSize::k2);
  EXPECT_EQ(offs, 1);
  EXPECT_EQ(in(kControl, AccessSize::k2), 5u << 10 | 1u);
}

TEST_F(AcpiPmTest, SmallKernelsPowerOffWithTypeZero) {
  pm.write(kControl, 0x2000, AccessSize::k2);
  EXPECT_EQ(offs, 1);
}

TEST_F(AcpiPmTest, HighByteAloneTakesTheTypeThatIsThere) {
  pm.write(kControl, 3 << 10, AccessSize::k2);
  pm.write(kControl + 1, (3 << 10 | 1 << 13) >> 8, AccessSize::k1);
  EXPECT_EQ(offs, 0);
}

TEST_F(AcpiPmTest, OtherSleepTypesAreIgnored) {
  for (unsigned type : {1u, 2u, 3u, 4u, 6u, 7u}) pm.write(kControl, type << 10 | 1 << 13, AccessSize::k2);
  EXPECT_EQ(offs, 0);
}

TEST_F(AcpiPmTest, EveryWidthAtEveryOffset) { testing::sweep(pm, AcpiPm::kPorts); }

TEST_F(AcpiPmTest, TimerCannotBeWritten) {
  pm.write(kTimer, 0x12345678, AccessSize::k4);
  EXPECT_EQ(in(kTimer, AccessSize::k4), 0u);
}

}  // namespace
}  // namespace bulkhead::device
