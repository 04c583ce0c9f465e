// How much may pass in a time: so many units a second for ever, and so many more at once after a rest.
#pragma once
#include <algorithm>
#include <utility>

#include "base/clock.h"

namespace bulkhead::block {

struct BucketLimit {
  u64 per_second = 0;  // 0: no limit
  u64 burst = 0;       // units that may pass at once after a rest; 0: a tenth of a second's
};

// A leaky bucket: what passes fills it, time empties it, and while it is over its rim nothing passes. So a single
// request may be larger than the burst; those behind it pay.
class TokenBucket {
 public:
  TokenBucket() = default;
  explicit TokenBucket(BucketLimit limit) : limit_{limit} {}
  bool limited() const { return limit_.per_second != 0; }
  const BucketLimit& limit() const { return limit_; }

  // How long until something may pass, in nanoseconds; 0: now. `now` never goes back.
  Nanoseconds wait(Nanoseconds now) {
    if (!limited()) return 0;
    leak(now);
    const double over = level_ - rim();
    return over <= 0 ? 0 : static_cast<Nanoseconds>(over * 1e9 / static_cast<double>(limit_.per_second)) + 1;
  }
  void take(u64 units) {
    if (limited()) level_ += static_cast<double>(units);
  }

 private:
  double rim() const {
    // One unit always fits, so that one a second is one a second.
    return limit_.burst != 0 ? static_cast<double>(limit_.burst - 1)
                             : std::max(static_cast<double>(limit_.per_second) / 10 - 1, 0.0);
  }
  void leak(Nanoseconds now) {
    const double seconds = static_cast<double>(now - std::exchange(last_, now)) / 1e9;
    level_ = std::max(0.0, level_ - seconds * static_cast<double>(limit_.per_second));
  }
  BucketLimit limit_;
  double level_ = 0;
  Nanoseconds last_ = 0;
};

}  // namespace bulkhead::block
