#include "device/power/power.h"

#include <gtest/gtest.h>

#include "bus/bus.h"
#include "device/testing/hostile.h"
#include "spec/acpi_ports.h"

namespace bulkhead::device {
namespace {
namespace acpi = spec::acpi;

struct PowerTest : ::testing::Test {
  PowerTest() {
    EXPECT_TRUE(ports.attach(acpi::kSleepControlPort, device.sleep().size(), device.sleep()));
    EXPECT_TRUE(ports.attach(acpi::kResetPort, device.reset_control().size(), device.reset_control()));
    EXPECT_TRUE(ports.attach(acpi::kKeyboardCommandPort, device.keyboard().size(), device.keyboard()));
  }
  void out(u16 port, u8 value) { ports.write(port, value, AccessSize::k1); }
  u64 in(u16 port) { return ports.read(port, AccessSize::k1).value; }

  int offs = 0, resets = 0;
  Power device{{[this] { ++offs; }, [this] { ++resets; }}};
  Bus ports;
};

TEST_F(PowerTest, SoftOffAsAHardwareReducedKernelDoesIt) {
  out(acpi::kSleepStatusPort, acpi::kWakeStatus);
  out(acpi::kSleepControlPort, acpi::kSleepTypeS5 << acpi::kSleepTypeShift | acpi::kSleepEnable);
  EXPECT_EQ(offs, 1);
  EXPECT_EQ(resets, 0);
  EXPECT_EQ(in(acpi::kSleepStatusPort), 0u);
}

TEST_F(PowerTest, SleepEnableReadsAsZero) {
  out(acpi::kSleepControlPort, 0xff);
  EXPECT_EQ(in(acpi::kSleepControlPort), 0xdfu);
}

TEST_F(PowerTest, SleepTypeWithoutEnableDoesNothing) {
  out(acpi::kSleepControlPort, acpi::kSleepTypeS5 << acpi::kSleepTypeShift);
  EXPECT_EQ(offs, 0);
}

TEST_F(PowerTest, OtherSleepTypesAreIgnored) {
  for (unsigned type = 0; type < 8; ++type)
    if (type != acpi::kSleepTypeS5)
      out(acpi::kSleepControlPort, static_cast<u8>(type << acpi::kSleepTypeShift | acpi::kSleepEnable));
  EXPECT_EQ(offs, 0);
}

TEST_F(PowerTest, ResetRegister) {
  out(acpi::kResetPort, 0x02);
  EXPECT_EQ(resets, 0);
  EXPECT_EQ(in(acpi::kResetPort), 0x02u);
  out(acpi::kResetPort, acpi::kResetValue);
  EXPECT_EQ(resets, 1);
}

TEST_F(PowerTest, KeyboardControllerResets) {
  for (unsigned value = 0; value < 0x100; ++value)
    if (value != acpi::kKeyboardPulseReset) out(acpi::kKeyboardCommandPort, static_cast<u8>(value));
  EXPECT_EQ(resets, 0);
  out(acpi::kKeyboardCommandPort, acpi::kKeyboardPulseReset);
  EXPECT_EQ(resets, 1);
}

TEST_F(PowerTest, ThereIsNoKeyboard) { EXPECT_EQ(in(acpi::kKeyboardCommandPort), 0xffu); }

TEST_F(PowerTest, OnlyTheFirstRequestCounts) {
  for (int i = 0; i < 10; ++i) out(acpi::kResetPort, acpi::kResetValue);
  out(acpi::kSleepControlPort, acpi::kSleepTypeS5 << acpi::kSleepTypeShift | acpi::kSleepEnable);
  EXPECT_EQ(resets, 1);
  EXPECT_EQ(offs, 0);
  device.reset();
  EXPECT_EQ(in(acpi::kResetPort), 0u);
  out(acpi::kResetPort, acpi::kResetValue);
  EXPECT_EQ(resets, 2);
}

TEST_F(PowerTest, AnswersEveryWidthEverywhere) {
  testing::sweep(device.sleep(), 2);
  testing::sweep(device.reset_control(), 1);
  testing::sweep(device.keyboard(), 1);
  EXPECT_LE(offs + resets, 1);
}

}  // namespace
}  // namespace bulkhead::device
