// One disk's limits: bytes and operations a second, in all, of reads, of writes. Requests wait in the order of coming,
// reads apart from writes.
#pragma once
#include <array>
#include <string>

#include "block/async/wait.h"
#include "block/throttle/token_bucket.h"

namespace bulkhead::block {

struct ThrottleLimits {
  BucketLimit bytes{}, read_bytes{}, write_bytes{};  // bytes
  BucketLimit ops{}, read_ops{}, write_ops{};        // operations
  bool any() const {
    return (bytes.per_second | read_bytes.per_second | write_bytes.per_second | ops.per_second | read_ops.per_second |
            write_ops.per_second) != 0;
  }
};

enum class Direction : u8 { kRead, kWrite };  // kWrite: whatever changes the disk

// The executor's thread.
class Throttle {
 public:
  explicit Throttle(Executor& executor) : executor_{executor}, lanes_{Lane{executor}, Lane{executor}} {}

  void set(const ThrottleLimits& limits);  // from now on; who waits is judged anew
  const ThrottleLimits& limits() const { return limits_; }
  bool active() const { return active_; }
  // Waits for its turn. False: cancel_waiting() was called meanwhile.
  Task<bool> admit(Direction direction, u64 bytes);
  void cancel_waiting();
  u64 waiting() const { return waiting_; }

 private:
  // The buckets are shared by both lanes, or of one.
  struct Lane {
    explicit Lane(Executor& executor) : turn{executor} {}
    AsyncMutex turn;
    TokenBucket bytes, ops;
  };
  Nanoseconds wait(Lane& lane);

  Executor& executor_;
  ThrottleLimits limits_;
  bool active_ = false;
  TokenBucket bytes_, ops_;
  std::array<Lane, 2> lanes_;
  u64 waiting_ = 0;
  u64 epoch_ = 0;  // of cancel_waiting()
};

// "10M", "1.5G", "500": a number with K, M, G, T in powers of 1024. Errors: anything else.
Result<u64> parse_amount(const std::string& text);

}  // namespace bulkhead::block
