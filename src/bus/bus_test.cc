#include "bus/bus.h"

#include <gtest/gtest.h>

#include <array>
#include <thread>
#include <vector>

#include "base/bits.h"

namespace bulkhead {
namespace {

constexpr std::array kSizes{AccessSize::k1, AccessSize::k2, AccessSize::k4, AccessSize::k8};

// Remembers what it was asked; answers with all the bits it has, whatever the width.
class Recorder : public IoDevice {
 public:
  IoReply read(u64 offset, AccessSize size) override {
    last_offset = offset, last_size = size, ++accesses;
    return claims ? IoReply::data(0x1122334455667788) : IoReply::ignored();
  }
  IoReply write(u64 offset, u64 value, AccessSize size) override {
    last_offset = offset, last_value = value, last_size = size, ++accesses;
    return claims ? IoReply::done() : IoReply::ignored();
  }
  bool claims = true;
  u64 last_offset = 0, last_value = 0, accesses = 0;
  AccessSize last_size = AccessSize::k1;
};

TEST(Bus, GivesOffsetsFromTheRangesStart) {
  Bus bus;
  Recorder device;
  ASSERT_TRUE(bus.attach(0x3f8, 8, device));
  EXPECT_TRUE(bus.write(0x3fd, 0x55, AccessSize::k1).handled);
  EXPECT_EQ(device.last_offset, 5u);
  EXPECT_EQ(device.last_value, 0x55u);
  EXPECT_EQ(bus.unclaimed(), 0u);
}

TEST(Bus, CutsValuesToTheAccessWidth) {
  Bus bus;
  Recorder device;
  ASSERT_TRUE(bus.attach(0, 8, device));
  for (const AccessSize size : kSizes) {
    EXPECT_EQ(bus.read(0, size).value, 0x1122334455667788 & mask_for_size(bytes_of(size)));
    bus.write(0, ~u64{0}, size);
    EXPECT_EQ(device.last_value, mask_for_size(bytes_of(size)));
  }
}

TEST(Bus, FindsTheRightOneOfManyRanges) {
  Bus bus;
  std::array<Recorder, 16> devices;
  for (u64 i = 16; i-- > 0;) ASSERT_TRUE(bus.attach(i * 0x10, 0x10, devices[i]));
  for (u64 i = 0; i < 16; ++i) {
    bus.read(i * 0x10 + i, AccessSize::k1);
    EXPECT_EQ(devices[i].accesses, 1u);
    EXPECT_EQ(devices[i].last_offset, i);
  }
}

TEST(Bus, OneDeviceMayHaveSeveralRangesUnderOneLock) {
  Bus bus;
  Mutex lock;
  Recorder device;
  ASSERT_TRUE(bus.attach(0x20, 2, device, lock));
  ASSERT_TRUE(bus.attach(0xa0, 2, device, lock));
  bus.read(0x21, AccessSize::k1);
  bus.read(0xa1, AccessSize::k1);
  EXPECT_EQ(device.accesses, 2u);
}

TEST(Bus, RefusesRangesThatAreNotValid) {
  Bus bus;
  Recorder device;
  EXPECT_FALSE(bus.attach(0x100, 0, device));
  EXPECT_FALSE(bus.attach(~u64{0}, 2, device));
  ASSERT_TRUE(bus.attach(0x100, 0x10, device));
  EXPECT_FALSE(bus.attach(0x100, 0x10, device));
  EXPECT_FALSE(bus.attach(0x10f, 1, device));
  EXPECT_FALSE(bus.attach(0xff, 2, device));
  EXPECT_FALSE(bus.attach(0x0, 0x1000, device));
  EXPECT_TRUE(bus.attach(0x110, 1, device));
  EXPECT_TRUE(bus.attach(0xff, 1, device));
}

TEST(Bus, NobodyAtHomeReadsAsAllOnesAndIsCounted) {
  Bus bus;
  for (const AccessSize size : kSizes) {
    const IoReply reply = bus.read(0x1234, size);
    EXPECT_FALSE(reply.handled);
    EXPECT_EQ(reply.value, mask_for_size(bytes_of(size)));
    EXPECT_FALSE(bus.write(~u64{0}, 1, size).handled);
  }
  EXPECT_EQ(bus.unclaimed(), 8u);
}

TEST(Bus, AnAccessOverARangesEndNeverReachesTheDevice) {
  Bus bus;
  Recorder device;
  ASSERT_TRUE(bus.attach(0x10, 4, device));
  EXPECT_FALSE(bus.read(0x12, AccessSize::k4).handled);
  EXPECT_FALSE(bus.write(0x10, 0, AccessSize::k8).handled);
  EXPECT_FALSE(bus.write(0xf, 0, AccessSize::k2).handled);
  EXPECT_EQ(device.accesses, 0u);
}

TEST(Bus, ADeviceThatIgnoresAReadGivesAllOnes) {
  Bus bus;
  Recorder device;
  device.claims = false;
  ASSERT_TRUE(bus.attach(0, 8, device));
  EXPECT_EQ(bus.read(0, AccessSize::k2).value, 0xffffu);
  EXPECT_EQ(bus.unclaimed(), 1u);
}

TEST(Bus, TheTopOfTheAddressSpaceIsReachable) {
  Bus bus;
  Recorder device;
  ASSERT_TRUE(bus.attach(~u64{0} - 15, 15, device));
  EXPECT_TRUE(bus.read(~u64{0} - 15, AccessSize::k8).handled);
  EXPECT_FALSE(bus.read(~u64{0} - 3, AccessSize::k8).handled);
}

TEST(Bus, LocksADeviceForTheWholeAccess) {
  Bus bus;
  Recorder device;  // its plain counter would lose updates without the lock
  ASSERT_TRUE(bus.attach(0, 8, device));
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 5000; ++i) bus.write(0, 0, AccessSize::k1);
    });
  threads.clear();
  EXPECT_EQ(device.accesses, 20000u);
}

TEST(IrqLine, APulseGoesUpAndDown) {
  class Line : public IrqLine {
   public:
    void set(bool asserted) override { seen.push_back(asserted); }
    std::vector<bool> seen;
  } line;
  line.pulse();
  EXPECT_EQ(line.seen, (std::vector{true, false}));
}

}  // namespace
}  // namespace bulkhead
