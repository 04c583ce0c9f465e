#include "device/debug_exit/debug_exit.h"

#include <gtest/gtest.h>

#include <vector>

#include "bus/bus.h"
#include "device/testing/hostile.h"

namespace bulkhead::device {
namespace {

struct DebugExitTest : ::testing::Test {
  std::vector<u8> statuses;
  DebugExit device{[this](u8 status) { statuses.push_back(status); }};
};

TEST_F(DebugExitTest, StatusIsTwiceTheValuePlusOne) {
  Bus ports;
  ASSERT_TRUE(ports.attach(DebugExit::kPort, DebugExit::kPorts, device));
  EXPECT_TRUE(ports.write(0xf4, 0x10, AccessSize::k1).handled);
  device.reset();
  EXPECT_TRUE(ports.write(0xf4, 0x31, AccessSize::k4).handled);
  EXPECT_EQ(statuses, (std::vector<u8>{0x21, 0x63}));
}

TEST_F(DebugExitTest, StatusIsTruncatedToAByte) {
  device.write(0, 0xff, AccessSize::k1);
  device.reset();
  device.write(0, 0x12345680, AccessSize::k4);
  device.reset();
  device.write(0, 0xff02, AccessSize::k1);  // the upper byte is not part of the access
  EXPECT_EQ(statuses, (std::vector<u8>{0xff, 0x01, 0x05}));
}

TEST_F(DebugExitTest, OnlyTheFirstWriteCounts) {
  for (u64 i = 3; i < 100; ++i) device.write(0, i, AccessSize::k1);
  EXPECT_EQ(statuses, (std::vector<u8>{7}));
}

TEST_F(DebugExitTest, ReadsAreZero) { EXPECT_EQ(device.read(0, AccessSize::k4).value, 0u); }

TEST_F(DebugExitTest, AnswersEveryWidthEverywhere) {
  testing::sweep(device, DebugExit::kPorts);
  EXPECT_EQ(statuses.size(), 1u);
}

}  // namespace
}  // namespace bulkhead::device
