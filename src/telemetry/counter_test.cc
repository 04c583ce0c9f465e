#include "telemetry/counter.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace bulkhead::telemetry {
namespace {

TEST(Counter, AddsFromManyThreads) {
  Counter counter;
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 10000; ++i) counter.add();
    });
  threads.clear();
  counter.add(5);
  EXPECT_EQ(counter.value(), 40005u);
}

TEST(CounterSet, KeepsNamesBesideValues) {
  CounterSet set{{"reads", "writes"}};
  set[1].add(3);
  EXPECT_EQ(set.size(), 2u);
  EXPECT_EQ(set.name(1), "writes");
  EXPECT_EQ(set[0].value(), 0u);
  EXPECT_EQ(set[1].value(), 3u);
}

TEST(Histogram, IsZeroWhenEmpty) {
  const Histogram histogram;
  EXPECT_EQ(histogram.count(), 0u);
  EXPECT_EQ(histogram.sum(), 0u);
  EXPECT_EQ(histogram.percentile(50), 0u);
}

TEST(Histogram, PercentilesAreWithinAnEighth) {
  Histogram histogram;
  for (u64 ns = 1; ns <= 100'000; ++ns) histogram.record(ns);
  EXPECT_EQ(histogram.count(), 100'000u);
  EXPECT_EQ(histogram.sum(), u64{100'000} * 100'001 / 2);
  for (const double p : {1.0, 25.0, 50.0, 90.0, 99.0, 100.0}) {
    const double truth = p * 1000;
    EXPECT_GE(static_cast<double>(histogram.percentile(p)), truth) << p;
    EXPECT_LE(static_cast<double>(histogram.percentile(p)), truth * 1.125 + 1) << p;
  }
}

TEST(Histogram, SmallValuesAreExact) {
  for (u64 value = 0; value < 16; ++value) {
    Histogram histogram;
    histogram.record(value);
    EXPECT_EQ(histogram.percentile(50), value);
  }
}

TEST(Histogram, TheLargestValueHasABucket) {
  Histogram histogram;
  histogram.record(~u64{0});
  histogram.record(u64{1} << 63);
  EXPECT_EQ(histogram.count(), 2u);
  EXPECT_EQ(histogram.percentile(100), ~u64{0});
  EXPECT_GE(histogram.percentile(1), u64{1} << 63);
}

TEST(Histogram, PercentilesOutsideTheirRangeAreAnswered) {
  Histogram histogram;
  histogram.record(7);
  EXPECT_EQ(histogram.percentile(0), 7u);
  EXPECT_GE(histogram.percentile(1000), 7u);
}

}  // namespace
}  // namespace bulkhead::telemetry
