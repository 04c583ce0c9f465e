#include "block/throttle/throttle.h"

#include <charconv>

namespace bulkhead::block {
namespace {

// A change of limits, a cancellation or the end of the disk is noticed so soon.
constexpr Nanoseconds kLongestSleep = 20'000'000;

}  // namespace

void Throttle::set(const ThrottleLimits& limits) {
  limits_ = limits;
  active_ = limits.any();
  bytes_ = TokenBucket{limits.bytes};
  ops_ = TokenBucket{limits.ops};
  lanes_[0].bytes = TokenBucket{limits.read_bytes};
  lanes_[0].ops = TokenBucket{limits.read_ops};
  lanes_[1].bytes = TokenBucket{limits.write_bytes};
  lanes_[1].ops = TokenBucket{limits.write_ops};
}

Nanoseconds Throttle::wait(Lane& lane) {
  const Nanoseconds now = executor_.now();
  return std::max({bytes_.wait(now), ops_.wait(now), lane.bytes.wait(now), lane.ops.wait(now)});
}

Task<bool> Throttle::admit(Direction direction, u64 bytes) {
  Lane& lane = lanes_[static_cast<u8>(direction)];
  const u64 epoch = epoch_;
  ++waiting_;
  AsyncMutex::Guard turn = co_await lane.turn.lock();
  while (epoch == epoch_) {
    const Nanoseconds time = wait(lane);
    if (time == 0) break;
    co_await executor_.sleep_for(std::min(time, kLongestSleep));
  }
  --waiting_;
  if (epoch != epoch_) co_return false;
  bytes_.take(bytes);
  lane.bytes.take(bytes);
  ops_.take(1);
  lane.ops.take(1);
  co_return true;
}

void Throttle::cancel_waiting() { ++epoch_; }

Result<u64> parse_amount(const std::string& text) {
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value, std::chars_format::fixed);
  u64 unit = 1;
  const std::string_view suffix{rest, end};
  const std::string_view units = "KMGT";
  if (suffix.size() == 1 && units.contains(suffix[0]))
    unit = u64{1} << 10 * (units.find(suffix[0]) + 1);
  else if (!suffix.empty())
    value = -1;
  const double amount = value * static_cast<double>(unit);
  if (error != std::errc{} || !(amount >= 0 && amount < 1e18))
    return fail("'{}' is no amount like 500, 10M or 1.5G", text);
  return static_cast<u64>(amount);
}

}  // namespace bulkhead::block
