#include "device/ioapic/ioapic.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "device/testing/hostile.h"

namespace bulkhead::device {
namespace {

constexpr u32 kMasked = 1u << 16, kLevel = 1u << 15, kRemoteIrr = 1u << 14, kActiveLow = 1u << 13, kLogical = 1u << 11;

struct Messages final : MsiSink {
  void send(Msi message) override { sent.push_back(message); }
  std::vector<Msi> sent;
};

struct IoApicTest : ::testing::Test {
  u32 get(u8 index) {
    device.write(0x00, index, AccessSize::k4);
    return static_cast<u32>(device.read(0x10, AccessSize::k4).value);
  }
  void set(u8 index, u32 value) {
    device.write(0x00, index, AccessSize::k4);
    device.write(0x10, value, AccessSize::k4);
  }
  u32 entry(unsigned pin) { return get(static_cast<u8>(0x10 + 2 * pin)); }
  void set_entry(unsigned pin, u32 low, u32 high = 0) {
    set(static_cast<u8>(0x11 + 2 * pin), high);
    set(static_cast<u8>(0x10 + 2 * pin), low);
  }
  IrqLine& line(u32 pin) { return device.line(Gsi{pin}); }

  Messages messages;
  IoApic device{messages};
};

TEST_F(IoApicTest, SaysWhatItIs) {
  EXPECT_EQ(get(1), 0x00170020u);
  EXPECT_EQ(get(0), 0u);
  set(0, 0xffffffff);
  EXPECT_EQ(get(0), 0x0f000000u);
  EXPECT_EQ(get(2), 0x0f000000u);
  for (unsigned pin = 0; pin < IoApic::kPins; ++pin) EXPECT_EQ(entry(pin), kMasked);
}

TEST_F(IoApicTest, EntriesKeepTheirBits) {
  set_entry(7, 0xffffffff, 0xffffffff);
  EXPECT_EQ(entry(7), 0x1ffffu & ~(kRemoteIrr | 1u << 12));
  EXPECT_EQ(get(0x11 + 14), 0xff000000u);
}

TEST_F(IoApicTest, AnEdgeBecomesAMessage) {
  set_entry(4, 0x31, 2u << 24);
  line(4).set(true);
  ASSERT_EQ(messages.sent.size(), 1u);
  EXPECT_EQ(messages.sent[0].address, 0xfee02000u);
  EXPECT_EQ(messages.sent[0].data, 0x31u);
  line(4).set(true);
  EXPECT_EQ(messages.sent.size(), 1u) << "no new edge";
  line(4).set(false);
  line(4).pulse();
  EXPECT_EQ(messages.sent.size(), 2u);
}

TEST_F(IoApicTest, MessagesCarryModesAndLevel) {
  set_entry(9, 0x42 | 1u << 8 | kLogical | kLevel | kActiveLow, 0xf0u << 24);
  line(9).set(true);
  ASSERT_EQ(messages.sent.size(), 1u);
  EXPECT_EQ(messages.sent[0].address, 0xfeef0004u);
  EXPECT_EQ(messages.sent[0].data, 0xc142u);
}

TEST_F(IoApicTest, LevelWaitsForEoi) {
  set_entry(9, 0x42 | kLevel);
  line(9).set(true);
  EXPECT_TRUE(entry(9) & kRemoteIrr);
  line(9).set(false);
  line(9).set(true);
  EXPECT_EQ(messages.sent.size(), 1u);
  device.eoi(0x41);
  EXPECT_EQ(messages.sent.size(), 1u);
  device.eoi(0x42);
  EXPECT_EQ(messages.sent.size(), 2u) << "still asserted";
  line(9).set(false);
  device.eoi(0x42);
  EXPECT_EQ(messages.sent.size(), 2u);
  EXPECT_FALSE(entry(9) & kRemoteIrr);
}

TEST_F(IoApicTest, TheEoiRegisterIsAnEoiToo) {
  set_entry(9, 0x42 | kLevel);
  line(9).set(true);
  device.write(0x40, 0x42, AccessSize::k4);
  EXPECT_EQ(messages.sent.size(), 2u);
}

TEST_F(IoApicTest, EoiReachesEveryPinOfTheVector) {
  for (const unsigned pin : {3u, 5u}) {
    set_entry(pin, 0x42 | kLevel);
    line(pin).set(true);
    line(pin).set(false);
  }
  device.eoi(0x42);
  EXPECT_FALSE((entry(3) | entry(5)) & kRemoteIrr);
}

TEST_F(IoApicTest, UnmaskingSendsAPendingLevelButNoOldEdge) {
  line(4).set(true);
  set_entry(4, 0x31);
  EXPECT_TRUE(messages.sent.empty());
  set_entry(9, 0x42 | kLevel | kMasked);
  line(9).set(true);
  EXPECT_TRUE(messages.sent.empty());
  set_entry(9, 0x42 | kLevel);
  EXPECT_EQ(messages.sent.size(), 1u);
  set_entry(9, 0x42 | kLevel | kMasked);
  set_entry(9, 0x42 | kLevel);
  EXPECT_EQ(messages.sent.size(), 1u) << "remote IRR holds it back";
}

TEST_F(IoApicTest, AVisitToEdgeModeClearsRemoteIrr) {
  set_entry(9, 0x42 | kLevel);
  line(9).set(true);
  line(9).set(false);
  set_entry(9, 0x42 | kMasked);
  EXPECT_FALSE(entry(9) & kRemoteIrr);
}

TEST_F(IoApicTest, NmiAndInitAreEdgesWhateverTheEntrySays) {
  set_entry(1, 4u << 8 | kLevel);
  set_entry(2, 5u << 8 | kLevel);
  line(1).set(true);
  line(2).set(true);
  ASSERT_EQ(messages.sent.size(), 2u);
  EXPECT_EQ(messages.sent[0].data, 0x400u);
  EXPECT_EQ(messages.sent[1].data, 0x500u);
  EXPECT_FALSE((entry(1) | entry(2)) & kRemoteIrr);
}

TEST_F(IoApicTest, ExtIntSmiAndReservedModesSendNothing) {
  for (const unsigned mode : {2u, 3u, 6u, 7u}) {
    set_entry(0, 0x30 | mode << 8);
    line(0).pulse();
    set_entry(0, 0x30 | mode << 8 | kLevel);
    line(0).pulse();
  }
  EXPECT_TRUE(messages.sent.empty());
  EXPECT_EQ(device.sent(), 0u);
}

TEST_F(IoApicTest, ResetMasksAll) {
  set_entry(9, 0x42 | kLevel);
  line(9).set(true);
  set(0, 0x05000000);
  device.reset();
  EXPECT_EQ(entry(9), kMasked);
  EXPECT_EQ(get(0), 0u);
  set_entry(9, 0x50 | kLevel);
  EXPECT_EQ(messages.sent.back().data & 0xff, 0x50u) << "the line kept its level";
}

TEST_F(IoApicTest, RegistersThatAreNotThereReadAsZero) {
  for (unsigned index = 0; index < 0x100; ++index) {
    if (index <= 2 || (index >= 0x10 && index < 0x40)) continue;
    set(static_cast<u8>(index), 0xffffffff);
    EXPECT_EQ(get(static_cast<u8>(index)), 0u) << index;
  }
}

TEST_F(IoApicTest, ReadOnlyRegistersStay) {
  set(1, 0xffffffff);
  set(2, 0xffffffff);
  EXPECT_EQ(get(1), 0x00170020u);
  EXPECT_EQ(get(2), 0u);
}

TEST_F(IoApicTest, NarrowDataAccessesAreIgnored) {
  device.write(0x00, 0x10, AccessSize::k1);
  EXPECT_FALSE(device.write(0x10, 0, AccessSize::k1).handled);
  EXPECT_FALSE(device.write(0x10, 0, AccessSize::k8).handled);
  EXPECT_FALSE(device.read(0x10, AccessSize::k2).handled);
  EXPECT_FALSE(device.read(0x11, AccessSize::k4).handled);
  EXPECT_EQ(entry(0), kMasked);
}

TEST_F(IoApicTest, AnswersEveryWidthEverywhere) { testing::sweep(device, IoApic::kSize); }

TEST_F(IoApicTest, SurvivesBabble) {
  testing::babble(device, 0x48, 5, 200'000, [&](u64 random) {
    if (random % 4 == 0) device.write(0x10, random >> 8, AccessSize::k4);
    if (random % 5 == 0) line(static_cast<u32>(random >> 8) % 24).set(random & 0x100000);
    if (random % 7 == 0) device.eoi(static_cast<u8>(random >> 16));
    messages.sent.clear();
  });
}

TEST_F(IoApicTest, LinesMayBeDrivenFromManyThreads) {
  for (unsigned pin = 0; pin < 3; ++pin) set_entry(pin, 0x30 + pin);
  std::vector<std::jthread> threads;
  for (u32 t = 0; t < 3; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 3000; ++i) line(t).pulse();
    });
  for (int i = 0; i < 3000; ++i) device.eoi(0x30);
  threads.clear();
  EXPECT_EQ(messages.sent.size(), 9000u);
}

TEST_F(IoApicTest, WatchersHearWhatAnEdgeSends) {
  std::vector<std::optional<Msi>> told;
  device.watch(17, [&](const std::optional<Msi>& message) { told.push_back(message); });
  ASSERT_EQ(told.size(), 1u);
  EXPECT_FALSE(told.back());  // masked
  set_entry(17, 0x51, 1u << 24);
  ASSERT_TRUE(told.back());
  EXPECT_EQ(told.back()->address, 0xfee01000u);
  EXPECT_EQ(told.back()->data, 0x51u);
  set_entry(17, 0x51 | kLevel);
  EXPECT_FALSE(told.back());
  set_entry(17, 0x51 | kMasked);
  EXPECT_FALSE(told.back());
  set_entry(17, 0x51 | 2u << 8);  // SMI
  EXPECT_FALSE(told.back());
  const auto times = told.size();
  set_entry(18, 0x52);
  EXPECT_EQ(told.size(), times);
}

}  // namespace
}  // namespace bulkhead::device
