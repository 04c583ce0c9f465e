#include "telemetry/counter.h"

#include <bit>
#include <cmath>

namespace bulkhead::telemetry {
namespace {
constexpr unsigned kSubBits = 3;  // 8 buckets per power of two

unsigned bucket_of(u64 value) {
  if (value < (1u << kSubBits)) return static_cast<unsigned>(value);
  const unsigned exponent = static_cast<unsigned>(std::bit_width(value)) - 1 - kSubBits;
  return ((exponent + 1) << kSubBits) + static_cast<unsigned>((value >> exponent) & ((1u << kSubBits) - 1));
}

u64 upper_edge(unsigned bucket) {
  if (bucket < (1u << kSubBits)) return bucket;
  const unsigned exponent = (bucket >> kSubBits) - 1;
  const u64 mantissa = (u64{1} << kSubBits) + (bucket & ((1u << kSubBits) - 1));
  return ((mantissa + 1) << exponent) - 1;
}
}  // namespace

void Histogram::record(u64 ns) {
  sum_.fetch_add(ns, std::memory_order_relaxed);
  buckets_[std::min(bucket_of(ns), kBuckets - 1)].fetch_add(1, std::memory_order_relaxed);
}

void Histogram::add(const Histogram& other) {
  sum_.fetch_add(other.sum(), std::memory_order_relaxed);
  for (unsigned i = 0; i < kBuckets; ++i)
    buckets_[i].fetch_add(other.buckets_[i].load(std::memory_order_relaxed), std::memory_order_relaxed);
}

u64 Histogram::count() const {
  u64 total = 0;
  for (const auto& bucket : buckets_) total += bucket.load(std::memory_order_relaxed);
  return total;
}

u64 Histogram::sum() const { return sum_.load(std::memory_order_relaxed); }

u64 Histogram::percentile(double p) const {
  const u64 total = count();
  if (total == 0) return 0;
  const u64 rank = std::max<u64>(1, static_cast<u64>(std::ceil(p / 100.0 * static_cast<double>(total))));
  u64 seen = 0;
  for (unsigned i = 0; i < kBuckets; ++i) {
    seen += buckets_[i].load(std::memory_order_relaxed);
    if (seen >= rank) return upper_edge(i);
  }
  return upper_edge(kBuckets - 1);
}

}  // namespace bulkhead::telemetry
