#include "block/throttle/throttle.h"

#include <gtest/gtest.h>

namespace bulkhead::block {
namespace {

constexpr Nanoseconds kSecond = 1'000'000'000;

// How many requests of `units` pass in `time`, by an imagined clock.
u64 passed_in(TokenBucket& bucket, Nanoseconds& now, Nanoseconds time, u64 units) {
  u64 passed = 0;
  for (const Nanoseconds end = now + time; now < end;) {
    const Nanoseconds wait = bucket.wait(now);
    if (wait == 0) {
      bucket.take(units);
      ++passed;
    } else {
      now += wait;
    }
  }
  return passed;
}

TEST(TokenBucket, KeepsItsRate) {
  TokenBucket bucket{{1000, 0}};
  Nanoseconds now = 5 * kSecond;
  const u64 first = passed_in(bucket, now, 10 * kSecond, 1);
  EXPECT_GE(first, 10'000u);
  EXPECT_LE(first, 10'110u);  // and what may pass at once
}

TEST(TokenBucket, ABurstPassesAtOnceAfterARest) {
  TokenBucket bucket{{10, 50}};
  Nanoseconds now = kSecond;
  u64 at_once = 0;
  for (; bucket.wait(now) == 0; ++at_once) bucket.take(1);
  EXPECT_EQ(at_once, 50u);
  EXPECT_NEAR(static_cast<double>(passed_in(bucket, now, kSecond, 1)), 10.0, 1.0);
  now += 100 * kSecond;
  for (at_once = 0; bucket.wait(now) == 0; ++at_once) bucket.take(1);
  EXPECT_EQ(at_once, 50u) << "no rest is worth more than the burst";
}

TEST(TokenBucket, ARequestLargerThanTheBurstPassesAndThoseBehindItPay) {
  TokenBucket bucket{{1000, 100}};
  EXPECT_EQ(bucket.wait(kSecond), 0u);
  bucket.take(10'000);
  const Nanoseconds wait = bucket.wait(kSecond);
  EXPECT_GT(wait, 9 * kSecond);
  EXPECT_LT(wait, 11 * kSecond);
}

TEST(TokenBucket, OneASecondIsOneASecond) {
  TokenBucket bucket{{1, 0}};
  Nanoseconds now = kSecond;
  EXPECT_EQ(passed_in(bucket, now, 10 * kSecond, 1), 10u);
}

Task<void> ask(Throttle* throttle, Direction direction, u64 bytes, std::vector<u64>* order, bool* admitted) {
  *admitted = co_await throttle->admit(direction, bytes);
  order->push_back(bytes);
}

TEST(Throttle, KeepsTheOrderAndReadsDoNotWaitForWrites) {
  auto executor = std::move(*Executor::create());
  Throttle throttle{*executor};
  std::vector<u64> order;
  std::array<bool, 4> admitted{};
  executor->run([&] {
    ThrottleLimits limits;
    limits.write_bytes = {100'000, 1};
    throttle.set(limits);
    executor->spawn(ask(&throttle, Direction::kWrite, 2000, &order, &admitted[0]));
    executor->spawn(ask(&throttle, Direction::kWrite, 1000, &order, &admitted[1]));
    executor->spawn(ask(&throttle, Direction::kWrite, 10, &order, &admitted[2]));
    executor->spawn(ask(&throttle, Direction::kRead, 5000, &order, &admitted[3]));
  });
  executor.reset();
  EXPECT_EQ(order, (std::vector<u64>{2000, 5000, 1000, 10}));
  EXPECT_TRUE(std::ranges::all_of(admitted, [](bool one) { return one; }));
}

TEST(Throttle, CancelledRequestsDoNotPass) {
  auto executor = std::move(*Executor::create());
  Throttle throttle{*executor};
  std::vector<u64> order;
  std::array<bool, 3> admitted{};
  executor->run([&] {
    ThrottleLimits limits;
    limits.ops = {1, 1};
    throttle.set(limits);
    for (bool& one : admitted) executor->spawn(ask(&throttle, Direction::kRead, 1, &order, &one));
  });
  executor->run([&] { throttle.cancel_waiting(); });
  executor.reset();
  EXPECT_EQ(admitted, (std::array<bool, 3>{true, false, false}));
}

TEST(Amounts, AreNumbersWithUnits) {
  EXPECT_EQ(*parse_amount("500"), 500u);
  EXPECT_EQ(*parse_amount("1.5G"), 1536_MiB);
  for (const char* const bad : {"", "G", "-1", "5 M", "0x10", "1MB", "nan", "inf", "1e30", "9999999999T"})
    EXPECT_FALSE(parse_amount(bad).has_value()) << bad;
}

}  // namespace
}  // namespace bulkhead::block
