#include "device/byte_device.h"

#include <gtest/gtest.h>

#include <array>

#include "device/testing/hostile.h"

namespace bulkhead::device {
namespace {

class Four final : public ByteRegisters {
 public:
  u8 read_byte(unsigned index) override { return bytes.at(index); }
  void write_byte(unsigned index, u8 value) override { bytes.at(index) = value; }
  std::array<u8, 4> bytes{0x11, 0x22, 0x33, 0x44};
};

TEST(ByteWindow, SplitsWideAccessesLowestAddressFirst) {
  Four four;
  ByteWindow window{four, 0, 4};
  EXPECT_EQ(window.read(0, AccessSize::k4).value, 0x44332211u);
  EXPECT_TRUE(window.write(1, 0xbbaa, AccessSize::k2).handled);
  EXPECT_EQ(four.bytes, (std::array<u8, 4>{0x11, 0xaa, 0xbb, 0x44}));
}

TEST(ByteWindow, ShowsOnlyItsOwnRegisters) {
  Four four;
  ByteWindow window{four, 2, 1};
  EXPECT_EQ(window.read(0, AccessSize::k1).value, 0x33u);
  EXPECT_FALSE(window.read(1, AccessSize::k1).handled);
  EXPECT_FALSE(window.read(0, AccessSize::k2).handled);
}

TEST(ByteWindow, AnswersEveryWidthEverywhere) {
  Four four;  // at() would throw if the window let anything through that is not there
  ByteWindow window{four, 0, 4};
  testing::sweep(window, 4);
}

}  // namespace
}  // namespace bulkhead::device
