#include <gtest/gtest.h>

#include <thread>

#include "engine/dbt/cpu/lapic.h"

namespace bulkhead::engine::dbt {
namespace {

using namespace lapic_reg;

class TestBus final : public LapicBus {
 public:
  TestBus() : LapicBus{{.tsc_hz = 2'000'000'000}} {}
  std::atomic<u64> tsc{1'000'000};
  void advance_ns(u64 ns) {
    tsc += 2 * ns;
    run_timers();
  }

 private:
  u64 host_tsc() const override { return tsc; }
};

class LapicTimerTest : public testing::Test {
 protected:
  LapicTimerTest() { lapic.mmio_write(kSpurious, 0x1ff); }
  // Takes and ends everything that is deliverable; how many there were.
  int drain() {
    int count = 0;
    while (lapic.acknowledge()) {
      ++count;
      lapic.mmio_write(kEoi, 0);
    }
    return count;
  }
  TestBus bus;
  std::unique_ptr<CpuState> state = std::make_unique<CpuState>();
  Lapic lapic{bus, 0, *state};
};

TEST_F(LapicTimerTest, OneShotFiresOnceAfterItsCount) {
  lapic.mmio_write(kDivide, 0xb);  // by 1
  lapic.mmio_write(kLvtTimer, 0xec);
  lapic.mmio_write(kInitialCount, 1000);
  EXPECT_EQ(lapic.mmio_read(kCurrentCount), 1000u);
  bus.advance_ns(400);
  EXPECT_EQ(lapic.mmio_read(kCurrentCount), 600u);
  EXPECT_EQ(drain(), 0);
  bus.advance_ns(600);
  EXPECT_EQ(lapic.acknowledge(), 0xec);
  lapic.mmio_write(kEoi, 0);
  EXPECT_EQ(lapic.mmio_read(kCurrentCount), 0u);
  bus.advance_ns(10'000);
  EXPECT_EQ(drain(), 0);
}

TEST_F(LapicTimerTest, DividerStretchesAndCanChangeUnderway) {
  lapic.mmio_write(kDivide, 0x3);  // by 16
  lapic.mmio_write(kLvtTimer, 0xec);
  lapic.mmio_write(kInitialCount, 100);
  bus.advance_ns(800);
  EXPECT_EQ(lapic.mmio_read(kCurrentCount), 50u);
  lapic.mmio_write(kDivide, 0x0);  // by 2
  EXPECT_EQ(lapic.mmio_read(kCurrentCount), 50u);
  bus.advance_ns(100);
  EXPECT_EQ(drain(), 1);
}

TEST_F(LapicTimerTest, PeriodicKeepsItsPaceAndDoesNotFlood) {
  lapic.mmio_write(kDivide, 0xb);
  lapic.mmio_write(kLvtTimer, 0x200ec);
  lapic.mmio_write(kInitialCount, 1'000'000);
  for (int i = 0; i < 5; ++i) {
    bus.advance_ns(1'000'000);
    EXPECT_EQ(drain(), 1);
  }
  bus.advance_ns(100'500'000);  // fell far behind: one, and the phase is kept
  EXPECT_EQ(drain(), 1);
  EXPECT_EQ(lapic.mmio_read(kCurrentCount), 500'000u);
}

TEST_F(LapicTimerTest, AbsurdlyShortPeriodIsBounded) {
  lapic.mmio_write(kDivide, 0xb);
  lapic.mmio_write(kLvtTimer, 0x200ec);
  lapic.mmio_write(kInitialCount, 1);
  int fired = 0;
  for (int i = 0; i < 1000; ++i) {
    bus.advance_ns(1'000);
    fired += drain();
  }
  EXPECT_LE(fired, 6);
  EXPECT_GE(fired, 4);
}

TEST_F(LapicTimerTest, MaskedTimerRunsSilently) {
  lapic.mmio_write(kDivide, 0xb);
  lapic.mmio_write(kLvtTimer, 0x100ec);
  lapic.mmio_write(kInitialCount, 1000);
  bus.advance_ns(2000);
  EXPECT_EQ(drain(), 0);
  EXPECT_EQ(lapic.mmio_read(kCurrentCount), 0u);
}

TEST_F(LapicTimerTest, ZeroCountStops) {
  lapic.mmio_write(kLvtTimer, 0xec);
  lapic.mmio_write(kInitialCount, 1000);
  lapic.mmio_write(kInitialCount, 0);
  bus.advance_ns(1'000'000);
  EXPECT_EQ(drain(), 0);
}

TEST_F(LapicTimerTest, DeadlineFiresAtItsTscAndReadsZeroAfterwards) {
  lapic.mmio_write(kLvtTimer, 0x400ec);
  u64 value;
  ASSERT_TRUE(lapic.write_msr(0x6e0, bus.tsc + 2000));
  ASSERT_TRUE(lapic.read_msr(0x6e0, value));
  EXPECT_EQ(value, bus.tsc + 2000);
  bus.advance_ns(999);
  EXPECT_EQ(drain(), 0);
  bus.advance_ns(1);
  EXPECT_EQ(drain(), 1);
  ASSERT_TRUE(lapic.read_msr(0x6e0, value));
  EXPECT_EQ(value, 0u);
}

TEST_F(LapicTimerTest, DeadlineInThePastFiresAtOnceAndZeroDisarms) {
  lapic.mmio_write(kLvtTimer, 0x400ec);
  ASSERT_TRUE(lapic.write_msr(0x6e0, 1));
  EXPECT_TRUE(lapic.has_interrupt());
  drain();
  ASSERT_TRUE(lapic.write_msr(0x6e0, bus.tsc + 2000));
  ASSERT_TRUE(lapic.write_msr(0x6e0, 0));
  bus.advance_ns(10'000);
  EXPECT_EQ(drain(), 0);
}

TEST_F(LapicTimerTest, DeadlineIsInGuestTime) {
  state->tsc_offset = ~u64{0} - 500'000 + 1;  // guest is 500000 behind
  lapic.mmio_write(kLvtTimer, 0x400ec);
  ASSERT_TRUE(lapic.write_msr(0x6e0, bus.tsc - 500'000 + 2000));
  bus.advance_ns(500);
  EXPECT_EQ(drain(), 0);
  state->tsc_offset = 0;  // guest's clock jumps past it
  lapic.tsc_offset_changed();
  EXPECT_EQ(drain(), 1);
}

TEST_F(LapicTimerTest, FarthestDeadlineDoesNotWrap) {
  lapic.mmio_write(kLvtTimer, 0x400ec);
  ASSERT_TRUE(lapic.write_msr(0x6e0, ~u64{0}));
  bus.advance_ns(1'000'000);
  EXPECT_EQ(drain(), 0);
}

TEST_F(LapicTimerTest, LeavingDeadlineModeDisarms) {
  lapic.mmio_write(kLvtTimer, 0x400ec);
  ASSERT_TRUE(lapic.write_msr(0x6e0, bus.tsc + 2000));
  lapic.mmio_write(kLvtTimer, 0xec);
  bus.advance_ns(10'000);
  EXPECT_EQ(drain(), 0);
  ASSERT_TRUE(lapic.write_msr(0x6e0, bus.tsc + 2000));  // ignored outside its mode
  bus.advance_ns(10'000);
  EXPECT_EQ(drain(), 0);
}

TEST_F(LapicTimerTest, CountIsIgnoredInDeadlineMode) {
  lapic.mmio_write(kLvtTimer, 0x400ec);
  lapic.mmio_write(kInitialCount, 1000);
  bus.advance_ns(1'000'000);
  EXPECT_EQ(drain(), 0);
  EXPECT_EQ(lapic.mmio_read(kCurrentCount), 0u);
}

TEST_F(LapicTimerTest, SleeperWakesItselfAndTheThreadLeavesItAlone) {
  lapic.mmio_write(kDivide, 0xb);
  lapic.mmio_write(kLvtTimer, 0xec);
  lapic.mmio_write(kInitialCount, 1000);
  bus.tsc += 2000;
  lapic.sleep();  // due already: does not block
  EXPECT_EQ(drain(), 1);
}

TEST_F(LapicTimerTest, TimerThreadIsToldOfAnEarlierDeadline) {
  std::atomic<bool> stopped{false};
  std::thread thread{[&] {
    do bus.run_timers();
    while (bus.wait_for_timers());
    stopped = true;
  }};
  lapic.mmio_write(kLvtTimer, 0x400ec);
  ASSERT_TRUE(lapic.write_msr(0x6e0, bus.tsc + 1'000'000'000'000));
  bus.tsc += 1'000'000;
  ASSERT_TRUE(lapic.write_msr(0x6e0, bus.tsc + 1));
  bus.tsc += 10;
  while (!lapic.has_interrupt()) std::this_thread::yield();
  EXPECT_EQ(drain(), 1);
  bus.stop_timers();
  thread.join();
  EXPECT_TRUE(stopped);
}

}  // namespace
}  // namespace bulkhead::engine::dbt
