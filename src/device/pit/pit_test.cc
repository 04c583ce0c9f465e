#include "device/pit/pit.h"

#include <gtest/gtest.h>

#include <string>

#include "base/fake_timers.h"
#include "base/timer_service.h"
#include "device/testing/hostile.h"

namespace bulkhead::device {
namespace {

constexpr u64 kSecond = 1'000'000'000;

struct PitTest : ::testing::Test {
  void out(unsigned index, unsigned value) { pit.ports().write(index, value, AccessSize::k1); }
  unsigned in(unsigned index) { return static_cast<unsigned>(pit.ports().read(index, AccessSize::k1).value); }
  unsigned in16(unsigned index) {
    const unsigned low = in(index);
    return low | in(index) << 8;
  }
  void count16(unsigned index, unsigned count) {
    out(index, count & 0xff);
    out(index, count >> 8);
  }
  void port_b(unsigned value) { pit.port_b().write(0, value, AccessSize::k1); }
  unsigned port_b() { return static_cast<unsigned>(pit.port_b().read(0, AccessSize::k1).value); }
  bool out2() { return port_b() & 0x20; }
  // Moves to the first nanosecond of the tick that lies `ticks` after the test's last such move.
  void ticks(u64 count) {
    tick_ += count;
    const u64 time = static_cast<u64>((u128{tick_} * kSecond + Pit::kHertz - 1) / Pit::kHertz);
    timers.advance(time - timers.clock().now());
  }

  FakeTimerService timers;
  testing::FakeLine irq;
  Pit pit{timers, irq};
  u64 tick_ = 0;
};

TEST_F(PitTest, IsSilentAfterReset) {
  timers.advance(kSecond);
  EXPECT_EQ(irq.rises, 0u);
  EXPECT_EQ(timers.armed(), 0u);
  EXPECT_FALSE(irq.level);
}

TEST_F(PitTest, RateGeneratorInterruptsAtItsRate) {
  out(3, 0x34);
  count16(0, 11932);
  const u64 before = irq.rises;
  timers.advance(kSecond);
  EXPECT_EQ(irq.rises - before, Pit::kHertz / 11932);
  EXPECT_EQ(pit.merged(), 0u);
}

TEST_F(PitTest, SquareWaveInterruptsAtItsRate) {
  out(3, 0x36);
  count16(0, 0);  // 65536: the BIOS's 18.2 Hz
  const u64 before = irq.rises;
  timers.advance(10 * kSecond);
  EXPECT_EQ(irq.rises - before, 10 * Pit::kHertz / 65536);
}

TEST_F(PitTest, OneShotInterruptsOnce) {
  out(3, 0x30);
  EXPECT_FALSE(irq.level);
  count16(0, 1000);
  ticks(999);
  EXPECT_EQ(irq.rises, 0u);
  ticks(1);
  EXPECT_EQ(irq.rises, 1u);
  EXPECT_TRUE(irq.level) << "mode 0 stays high";
  timers.advance(kSecond);
  EXPECT_EQ(irq.rises, 1u);
  count16(0, 1000);
  EXPECT_FALSE(irq.level);
  timers.advance(kSecond);
  EXPECT_EQ(irq.rises, 2u);
}

TEST_F(PitTest, SoftwareStrobeInterruptsAfterItsCount) {
  out(3, 0x38);
  const u64 before = irq.rises;
  count16(0, 500);
  timers.advance(kSecond);
  EXPECT_EQ(irq.rises, before + 1);
  count16(0, 500);  // a kernel's next event: the count alone
  timers.advance(kSecond);
  EXPECT_EQ(irq.rises, before + 2);
}

TEST_F(PitTest, CountsAreExactToATick) {
  out(3, 0xb0);
  port_b(1);
  count16(2, 0xffff);
  EXPECT_EQ(in16(2), 0xffffu);
  ticks(1);
  EXPECT_EQ(in16(2), 0xfffeu);
  ticks(0x1234);
  EXPECT_EQ(in16(2), 0xfffeu - 0x1234);
  timers.advance(kSecond);  // and on below zero
  EXPECT_EQ(in16(2), static_cast<u16>(0xffff - timers.clock().now() * Pit::kHertz / kSecond));
}

// As Linux calibrates its TSC in a hurry: channel 2 in mode 0, watching the high byte fall.
TEST_F(PitTest, QuickCalibrationSeesEveryHighByte) {
  port_b(1);
  out(3, 0xb0);
  out(2, 0xff);
  out(2, 0xff);
  for (unsigned high = 0xff; high > 0xf0; --high) {
    unsigned reads = 0;
    while (in(2), in(2) == high) ticks(10), ++reads;
    EXPECT_GT(reads, 20u) << high;
    EXPECT_LT(reads, 30u) << high;
  }
}

// As Linux calibrates with the gate: OUT2 in port B goes high after 50 ms.
TEST_F(PitTest, GatedCalibrationEndsOnTime) {
  port_b((port_b() & ~2u) | 1);
  out(3, 0xb0);
  count16(2, static_cast<unsigned>(Pit::kHertz / 20));
  EXPECT_FALSE(out2());
  ticks(Pit::kHertz / 20 - 1);
  EXPECT_FALSE(out2());
  ticks(1);
  EXPECT_TRUE(out2());
}

TEST_F(PitTest, TheGateStopsAndContinuesMode0) {
  out(3, 0xb0);
  count16(2, 1000);  // the gate is low
  ticks(5000);
  EXPECT_EQ(in16(2), 1000u);
  port_b(1);
  ticks(400);
  port_b(0);
  ticks(5000);
  EXPECT_EQ(in16(2), 600u);
  EXPECT_FALSE(out2());
  port_b(1);
  ticks(600);
  EXPECT_TRUE(out2());
}

TEST_F(PitTest, HardwareTriggersAreRisesOfTheGate) {
  out(3, 0xb2);  // mode 1
  count16(2, 100);
  EXPECT_TRUE(out2());
  port_b(1);
  EXPECT_FALSE(out2());
  ticks(60);
  port_b(0);
  EXPECT_FALSE(out2()) << "goes on without the gate";
  port_b(1);  // again from the start
  ticks(99);
  EXPECT_FALSE(out2());
  ticks(1);
  EXPECT_TRUE(out2());
  out(3, 0xba);  // mode 5: low for one tick
  count16(2, 100);
  port_b(0);
  port_b(1);
  ticks(99);
  EXPECT_TRUE(out2());
  ticks(1);
  EXPECT_FALSE(out2());
  ticks(1);
  EXPECT_TRUE(out2());
}

TEST_F(PitTest, SquareWavesCountByTwoAndOddOnesAreHighLonger) {
  port_b(1);
  out(3, 0xb6);
  count16(2, 5);
  std::string shape;
  for (int i = 0; i < 10; ++i, ticks(1)) shape += out2() ? '1' : '0';
  EXPECT_EQ(shape, "1110011100");
  out(3, 0xb6);
  count16(2, 8);
  for (const unsigned expected : {8u, 6u, 4u, 2u, 8u, 6u}) {
    EXPECT_EQ(in16(2), expected);
    ticks(1);
  }
}

TEST_F(PitTest, RateGeneratorIsLowForOneTick) {
  port_b(1);
  out(3, 0xb4);
  count16(2, 3);
  std::string shape;
  for (int i = 0; i < 6; ++i, ticks(1)) shape += out2() ? '1' : '0';
  EXPECT_EQ(shape, "110110");
}

TEST_F(PitTest, ANewPeriodStartsWithTheNextCycle) {
  out(3, 0x34);
  count16(0, 1000);
  ticks(400);
  count16(0, 3000);
  EXPECT_EQ(in16(0), 600u);
  ticks(599);
  const u64 before = irq.rises;
  ticks(1);
  EXPECT_EQ(irq.rises, before + 1);
  EXPECT_EQ(in16(0), 3000u);
  ticks(2999);
  EXPECT_EQ(irq.rises, before + 1);
  ticks(1);
  EXPECT_EQ(irq.rises, before + 2);
}

TEST_F(PitTest, ALatchedCountStandsStill) {
  port_b(1);
  out(3, 0xb0);
  count16(2, 5000);
  ticks(10);
  out(3, 0x80);
  ticks(10);
  out(3, 0x80);  // the first latch counts
  EXPECT_EQ(in16(2), 4990u);
  EXPECT_EQ(in16(2), 4980u);
}

TEST_F(PitTest, ReadBackLatchesStatusAndCount) {
  port_b(1);
  out(3, 0xb0);
  out(3, 0xe8);  // status of channel 2
  EXPECT_EQ(in(2), 0x70u) << "OUT low, null count";
  count16(2, 10);
  ticks(10);
  out(3, 0xc8);  // both
  ticks(5);
  EXPECT_EQ(in(2), 0xb0u);
  EXPECT_EQ(in16(2), 0u);
  EXPECT_EQ(in16(2), 0xfffbu);
}

TEST_F(PitTest, SingleByteAccessAndBcd) {
  port_b(1);
  out(3, 0x90);  // low byte only
  out(2, 0x80);
  EXPECT_EQ(in(2), 0x80u);
  EXPECT_EQ(in(2), 0x80u);
  out(3, 0xa0);  // high byte only
  out(2, 0x12);
  EXPECT_EQ(in(2), 0x12u);
  out(3, 0xb1);  // BCD
  count16(2, 0x1000);
  ticks(1);
  EXPECT_EQ(in16(2), 0x0999u);
  count16(2, 0);  // 10000
  ticks(1);
  EXPECT_EQ(in16(2), 0x9999u);
}

TEST_F(PitTest, TheRefreshBitToggles) {
  const unsigned first = port_b() & 0x10;
  timers.advance(15'085);
  EXPECT_NE(port_b() & 0x10, first);
}

TEST_F(PitTest, ALateHostMergesTicks) {
  out(3, 0x34);
  count16(0, 1193);
  const u64 before = irq.rises;
  timers.stall(kSecond);
  EXPECT_EQ(irq.rises, before + 1);
  EXPECT_GT(pit.merged(), 990u);
  timers.advance(2'000'000);
  EXPECT_GE(irq.rises, before + 2) << "and goes on";
}

TEST_F(PitTest, AnAbsurdRateDoesNotFlood) {
  for (const unsigned count : {1u, 2u, 3u, 10u}) {
    out(3, 0x34);
    count16(0, count);
    const u64 before = timers.fired();
    timers.advance(kSecond / 10);
    EXPECT_LE(timers.fired() - before, kSecond / 10 / Pit::kMinimumInterval + 1);
    EXPECT_GT(timers.fired() - before, 900u);
  }
}

TEST_F(PitTest, AnUnfinishedCountDoesNotRun) {
  out(3, 0x30);
  out(0, 0x10);
  timers.advance(kSecond);
  EXPECT_EQ(irq.rises, 0u);
  out(0, 0x00);
  timers.advance(kSecond);
  EXPECT_EQ(irq.rises, 1u);
  out(0, 0x10);  // the first byte stops mode 0
  EXPECT_FALSE(irq.level);
}

TEST_F(PitTest, ResetDisarms) {
  out(3, 0x34);
  count16(0, 100);
  pit.reset();
  EXPECT_EQ(timers.armed(), 0u);
  EXPECT_FALSE(irq.level);
  EXPECT_EQ(port_b() & 0x0f, 0u);
}

TEST_F(PitTest, BcdDigitsThatAreNoneAreAnswered) {
  port_b(1);
  out(3, 0xb1);
  count16(2, 0xffff);
  in16(2);
  ticks(20000);
  in16(2);
}

TEST_F(PitTest, AnswersEveryWidthEverywhere) {
  testing::sweep(pit.ports(), 4);
  testing::sweep(pit.port_b(), 1);
}

TEST_F(PitTest, SurvivesBabble) {
  testing::babble(pit.ports(), 4, 9, 100'000, [&](u64 random) {
    if (random % 3 == 0) port_b(static_cast<unsigned>(random >> 8));
    if (random % 4 == 0) timers.advance(random >> 8 & 0xffff);
    if (random % 1000 == 0) timers.stall(kSecond);
    port_b();
  });
}

TEST(Pit, TheTimerComesOnAnotherThread) {
  HostTimerService timers;
  testing::FakeLine irq;  // driven under the model's lock only
  Pit pit{timers, irq};
  testing::babble(pit.ports(), 4, 1, 20'000, [&](u64 random) {
    if (random % 100 != 0) return;
    pit.ports().write(3, 0x34, AccessSize::k1);
    pit.ports().write(0, 1, AccessSize::k1);
    pit.ports().write(0, 0, AccessSize::k1);
  });
}

}  // namespace
}  // namespace bulkhead::device
