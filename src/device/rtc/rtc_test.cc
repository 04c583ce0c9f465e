#include "device/rtc/rtc.h"

#include <gtest/gtest.h>

#include <array>

#include "base/fake_timers.h"
#include "base/timer_service.h"
#include "device/testing/hostile.h"

namespace bulkhead::device {
namespace {

constexpr u64 kSecond = 1'000'000'000;
constexpr u64 kMillisecond = 1'000'000;
constexpr u64 kNewYearsEve = 1704067199;  // 2023-12-31 23:59:59, a Sunday

struct NewYearsEve : public FakeTimerService {
  NewYearsEve() { clock().set_unix_base(kNewYearsEve * kSecond); }
};

struct RtcTest : ::testing::Test {
  void set(unsigned index, unsigned value) {
    rtc.ports().write(0, index, AccessSize::k1);
    rtc.ports().write(1, value, AccessSize::k1);
  }
  unsigned get(unsigned index) {
    rtc.ports().write(0, index, AccessSize::k1);
    return static_cast<unsigned>(rtc.ports().read(1, AccessSize::k1).value);
  }
  std::array<unsigned, 8> date() { return {get(0x32), get(9), get(8), get(7), get(6), get(4), get(2), get(0)}; }
  using Date = std::array<unsigned, 8>;  // century, year, month, day, weekday, hour, minute, second

  NewYearsEve timers;
  testing::FakeLine irq;
  Rtc rtc{timers, irq};
};

TEST_F(RtcTest, ShowsTheHostsTimeInBcd) {
  EXPECT_EQ(date(), (Date{0x20, 0x23, 0x12, 0x31, 1, 0x23, 0x59, 0x59}));
  timers.advance(kSecond);
  EXPECT_EQ(date(), (Date{0x20, 0x24, 0x01, 0x01, 2, 0x00, 0x00, 0x00}));
  EXPECT_EQ(get(0x0d), 0x80u);
}

TEST_F(RtcTest, ShowsBinaryAndTwelveHours) {
  set(0x0b, 0x04);
  EXPECT_EQ(date(), (Date{20, 23, 12, 31, 1, 0x80 | 11, 59, 59}));
  timers.advance(kSecond);
  EXPECT_EQ(get(4), 12u) << "midnight is 12 AM";
  timers.advance(12 * 3600 * kSecond);
  EXPECT_EQ(get(4), 0x80u | 12) << "noon is 12 PM";
  set(0x0b, 0x00);
  EXPECT_EQ(get(4), 0x92u);
}

TEST_F(RtcTest, LeapDays) {
  timers.advance(u64{59} * 86400 * kSecond);
  EXPECT_EQ(date(), (Date{0x20, 0x24, 0x02, 0x28, 4, 0x23, 0x59, 0x59}));
  timers.advance(kSecond);
  EXPECT_EQ(get(7), 0x29u);
}

// The way a kernel sets the clock: SET and divider reset, fields, and both back.
TEST_F(RtcTest, CanBeSet) {
  set(0x0b, 0x82);
  set(0x0a, 0x76);
  const unsigned indices[] = {0x32, 9, 8, 7, 4, 2, 0}, values[] = {0x19, 0x99, 0x12, 0x31, 0x23, 0x58, 0x57};
  for (unsigned i = 0; i < 7; ++i) set(indices[i], values[i]);
  timers.advance(10 * kSecond);
  EXPECT_EQ(get(0), 0x57u) << "the time stands";
  set(0x0b, 0x02);
  timers.advance(10 * kSecond);
  EXPECT_EQ(get(0), 0x57u) << "the divider is still held";
  set(0x0a, 0x26);
  timers.advance(499 * kMillisecond);
  EXPECT_EQ(get(0), 0x57u);
  timers.advance(kMillisecond);
  EXPECT_EQ(get(0), 0x58u) << "half a second after the divider's reset";
  timers.advance(62 * kSecond);
  EXPECT_EQ(date(), (Date{0x20, 0x00, 0x01, 0x01, 7, 0x00, 0x00, 0x00}));
}

TEST_F(RtcTest, FieldsMayBeSetWhileItRuns) {
  set(4, 0x05);
  set(2, 0x30);
  EXPECT_EQ(date(), (Date{0x20, 0x23, 0x12, 0x31, 1, 0x05, 0x30, 0x59}));
  timers.advance(kSecond);
  EXPECT_EQ(get(2), 0x31u);
}

TEST_F(RtcTest, KeepsTimeOverReset) {
  set(4, 0x05);
  set(0x40, 0xab);
  set(0x0b, 0x72);
  rtc.reset();
  EXPECT_EQ(get(4), 0x05u);
  EXPECT_EQ(get(0x40), 0xabu);
  EXPECT_EQ(get(0x0b), 0x02u);
  EXPECT_EQ(timers.armed(), 0u);
}

TEST_F(RtcTest, UpdateInProgressEndsEverySecond) {
  EXPECT_EQ(get(0x0a), 0x26u);
  timers.advance(kSecond - 3 * kMillisecond);
  EXPECT_EQ(get(0x0a), 0x26u);
  timers.advance(kMillisecond);
  EXPECT_EQ(get(0x0a), 0xa6u);
  EXPECT_EQ(get(0), 0x59u);
  timers.advance(2 * kMillisecond);
  EXPECT_EQ(get(0x0a), 0x26u);
  EXPECT_EQ(get(0), 0x00u);
  set(0x0b, 0x82);
  timers.advance(kSecond - kMillisecond);
  EXPECT_EQ(get(0x0a), 0x26u) << "not while SET";
}

TEST_F(RtcTest, UpdateInterrupt) {
  set(5, 0x05);  // the alarm is not to come at midnight too
  set(0x0b, 0x12);
  timers.advance(kSecond - 1);
  EXPECT_FALSE(irq.level);
  timers.advance(1);
  EXPECT_TRUE(irq.level);
  EXPECT_EQ(get(0x0c) & 0xb0, 0x90u);
  EXPECT_FALSE(irq.level);
  EXPECT_EQ(get(0x0c) & 0x90, 0x00u) << "reading clears";
  timers.advance(3 * kSecond);
  EXPECT_EQ(irq.rises, 2u) << "not again before C is read";
}

TEST_F(RtcTest, PeriodicInterruptAtItsRate) {
  set(0x0a, 0x26);
  set(0x0b, 0x42);
  unsigned count = 0;
  for (int i = 0; i < 10'000; ++i) {
    timers.advance(kMillisecond / 10);
    if (irq.level) {
      EXPECT_EQ(get(0x0c) & 0xc0, 0xc0u);
      ++count;
    }
  }
  EXPECT_NEAR(count, 1024, 1);
  set(0x0a, 0x22);  // 2 is the oddity: 128 Hz
  get(0x0c);
  const u64 before = irq.rises;
  for (int i = 0; i < 10'000; ++i) {
    timers.advance(kMillisecond / 10);
    get(0x0c);
  }
  EXPECT_NEAR(static_cast<double>(irq.rises - before), 128, 1);
}

TEST_F(RtcTest, AlarmWithWildcards) {
  set(5, 0xff);
  set(3, 0xff);
  set(1, 0x10);
  set(0x0b, 0x22);
  timers.advance(10 * kSecond);
  EXPECT_FALSE(irq.level);
  timers.advance(kSecond);
  EXPECT_TRUE(irq.level);
  EXPECT_EQ(get(0x0c) & 0xa0, 0xa0u);
  timers.advance(60 * kSecond);
  EXPECT_TRUE(irq.level);
}

TEST_F(RtcTest, AlarmAtATimeOfTheDay) {
  set(5, 0x06);
  set(3, 0x30);
  set(1, 0x00);
  set(0x0b, 0x22);
  timers.advance((6 * 3600 + 30 * 60) * kSecond);
  EXPECT_FALSE(irq.level);
  timers.advance(kSecond);
  EXPECT_TRUE(irq.level);
  get(0x0c);
  timers.advance(86399 * kSecond);
  EXPECT_FALSE(irq.level);
  timers.advance(kSecond);
  EXPECT_TRUE(irq.level);
  EXPECT_EQ(timers.fired(), 2u);
}

TEST_F(RtcTest, FlagsAreSetWithoutInterrupts) {
  get(0x0c);
  timers.advance(2 * kSecond);
  EXPECT_EQ(get(0x0c) & 0xd0, 0x50u);
  EXPECT_EQ(irq.rises, 0u);
  EXPECT_EQ(timers.fired(), 0u);
}

TEST_F(RtcTest, EnablingAFlaggedInterruptRaisesItAtOnce) {
  timers.advance(2 * kSecond);
  set(0x0b, 0x12);
  EXPECT_TRUE(irq.level);
  set(0x0b, 0x02);
  EXPECT_FALSE(irq.level);
}

TEST_F(RtcTest, TheNmiBitAndTheIndexPort) {
  rtc.ports().write(0, 0x80 | 0x0d, AccessSize::k1);
  EXPECT_EQ(rtc.ports().read(1, AccessSize::k1).value, 0x80u);
  EXPECT_EQ(rtc.ports().read(0, AccessSize::k1).value, 0xffu);
}

TEST_F(RtcTest, CmosIsRamButForTheClock) {
  for (unsigned i = 0x0e; i < 0x80; ++i)
    if (i != Rtc::kCenturyRegister) set(i, i ^ 0x5a);
  for (unsigned i = 0x0e; i < 0x80; ++i) {
    if (i != Rtc::kCenturyRegister) {
      EXPECT_EQ(get(i), i ^ 0x5a);
    }
  }
  rtc.set_cmos(0x34, 7);
  rtc.set_cmos(0x00, 7);
  rtc.set_cmos(0xff, 7);
  EXPECT_EQ(get(0x34), 7u);
  EXPECT_EQ(get(0), 0x59u);
}

TEST_F(RtcTest, ReadOnlyRegistersStay) {
  set(0x0c, 0xff);
  set(0x0d, 0x00);
  EXPECT_EQ(get(0x0c), 0x00u);
  EXPECT_EQ(get(0x0d), 0x80u);
  set(0x0a, 0xa6);
  EXPECT_EQ(get(0x0a), 0x26u) << "UIP cannot be written";
}

TEST_F(RtcTest, DatesThatAreNoneAreAnswered) {
  for (const unsigned format : {0x82u, 0x86u, 0x80u, 0x84u})
    for (const unsigned value : {0x00u, 0xffu, 0x99u, 0xaau}) {
      set(0x0b, format);
      for (const unsigned index : {0u, 2u, 4u, 6u, 7u, 8u, 9u, 0x32u}) set(index, value);
      EXPECT_EQ(get(8), value);
      set(0x0b, format & ~0x80u);
      timers.advance(kSecond);
      const unsigned month = get(8), day = get(7);
      EXPECT_NE(month, 0u);
      EXPECT_NE(day, 0u);
      EXPECT_LE(day, 0x31u);
    }
}

TEST_F(RtcTest, AnAlarmThatNeverComesCostsNothing) {
  set(5, 0xff);
  set(3, 0xff);
  set(1, 0x75);
  set(0x0b, 0x22);
  EXPECT_EQ(timers.armed(), 0u);
  timers.advance(u64{3} * 86400 * kSecond);
  EXPECT_FALSE(irq.level);
  EXPECT_EQ(timers.fired(), 0u);
}

TEST_F(RtcTest, AHostClockSetBackDoesNoHarm) {
  set(0x0b, 0x32);
  timers.clock().set_unix_base((kNewYearsEve - 3600) * kSecond);
  EXPECT_EQ(get(4), 0x22u);
  timers.advance(2 * kSecond);
  EXPECT_TRUE(irq.level);
}

TEST_F(RtcTest, TheFastestRateIsBoundedByReadingC) {
  set(0x0a, 0x23);
  set(0x0b, 0x72);
  timers.advance(100 * kSecond);
  EXPECT_EQ(irq.rises, 1u);
  EXPECT_EQ(timers.fired(), 1u);
}

TEST_F(RtcTest, AnswersEveryWidthEverywhere) { testing::sweep(rtc.ports(), Rtc::kPorts); }

TEST_F(RtcTest, SurvivesBabble) {
  testing::babble(rtc.ports(), Rtc::kPorts, 21, 100'000, [&](u64 random) {
    if (random % 3 == 0) set(static_cast<unsigned>(random >> 8) % 16, static_cast<unsigned>(random >> 16) & 0xff);
    if (random % 5 == 0) timers.advance(random >> 8 & 0xffffff);
    if (random % 1000 == 0) timers.stall(u64{400} * 86400 * kSecond % (random | 1));
    if (random % 7000 == 0) rtc.reset();
  });
}

TEST(Rtc, TheTimerComesOnAnotherThread) {
  HostTimerService timers;
  testing::FakeLine irq;  // driven under the model's lock only
  Rtc rtc{timers, irq};
  testing::babble(rtc.ports(), Rtc::kPorts, 2, 20'000, [&](u64 random) {
    if (random % 10 != 0) return;
    rtc.ports().write(0, 0x4223'0a0b >> (random % 3 * 8), AccessSize::k1);
    rtc.ports().write(1, 0x63, AccessSize::k1);
  });
}

TEST(Calendar, GoesThereAndBack) {
  for (i64 seconds = -62167219200; seconds < 253402300800; seconds += 86400 * 97 + 12345)
    EXPECT_EQ(unix_from_calendar(calendar_from_unix(seconds)), seconds);
}

TEST(Calendar, TakesAnything) {
  EXPECT_EQ(unix_from_calendar({.year = 2024, .month = 0, .day = 0}), 1704067200 - 86400);
  EXPECT_EQ(unix_from_calendar({.year = 2023, .month = 99, .day = 32}), 1704067200);
  unix_from_calendar({~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u});
}

}  // namespace
}  // namespace bulkhead::device
