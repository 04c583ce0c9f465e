// Counters and latency histograms that cost a relaxed add, under one set of names on every engine.
#pragma once
#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/ints.h"

namespace bulkhead::telemetry {

class Counter {
 public:
  void add(u64 n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  u64 value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<u64> value_{0};
};

// Log-linear buckets: 8 per power of two, so a percentile is within 12.5 % of the truth. Values in nanoseconds.
// record() from any thread.
class Histogram {
 public:
  void record(u64 ns);
  void add(const Histogram& other);  // what `other` has recorded, too
  u64 count() const;
  u64 sum() const;
  u64 percentile(double p) const;  // p in 0..100; 0 when empty; the upper edge of the bucket that holds it

 private:
  static constexpr unsigned kBuckets = 8 * 62;  // values up to 2^64 - 1
  std::atomic<u64> sum_{0};
  std::array<std::atomic<u64>, kBuckets> buckets_{};
};

// A fixed list of named counters, e.g. one engine's or one device's.
class CounterSet {
 public:
  explicit CounterSet(std::vector<std::string_view> names)
      : names_{std::move(names)}, counters_{std::make_unique<Counter[]>(names_.size())} {}
  Counter& operator[](std::size_t index) { return counters_[index]; }
  const Counter& operator[](std::size_t index) const { return counters_[index]; }
  std::size_t size() const { return names_.size(); }
  std::string_view name(std::size_t index) const { return names_[index]; }

 private:
  std::vector<std::string_view> names_;
  std::unique_ptr<Counter[]> counters_;
};

// Counters of several sets by name; those of one name are summed up.
class CounterSums {
 public:
  void add(const CounterSet& set, std::string_view prefix = {}) {
    for (std::size_t i = 0; i < set.size(); ++i)
      sums_[std::string{prefix} + std::string{set.name(i)}] += set[i].value();
  }
  void add(const std::string& name, u64 value) { sums_[name] += value; }
  std::vector<std::pair<std::string, u64>> all() const { return {sums_.begin(), sums_.end()}; }

 private:
  std::map<std::string, u64> sums_;
};

}  // namespace bulkhead::telemetry
