#include "device/core/block/block_service.h"

#include <bit>

namespace bulkhead::device {

BlockService::BlockService(BlockCore& core, Hands hands)
    : core_{core}, executor_{core.disk().executor()}, hands_{std::move(hands)} {}

BlockService::~BlockService() {
  closed_ = true;
  abandon_waiting();
  paused([] {});
  executor_.run([] {});  // a last kick, which finds us closed
}

void BlockService::kick(u64 queues) {
  if (queues != 0 && kicked_.fetch_or(queues) == 0) executor_.post(*this);
}

void BlockService::run_posted() {
  u64 queues = kicked_.exchange(0);
  if (closed_) return;
  if (pausing_) {
    put_off_ |= queues;
    return;
  }
  for (; queues != 0; queues &= queues - 1) hands_.serve(static_cast<unsigned>(std::countr_zero(queues)));
}

void BlockService::paused(const std::function<void()>& change) {
  const std::lock_guard lock{pause_mutex_};
  std::binary_semaphore quiet{0};
  executor_.post([&] {
    pausing_ = true;
    quiet_ = &quiet;
    if (in_flight_ == 0) want_turn_end();
  });
  quiet.acquire();
  change();
  executor_.run([this] {
    pausing_ = false;
    kick(std::exchange(put_off_, 0));
  });
}

void BlockService::abandon_waiting() {
  executor_.post([disk = &core_.disk()] { disk->cancel_waiting(); });
}

void BlockService::signal_soon(unsigned queue) {
  to_signal_ |= u64{1} << queue;
  want_turn_end();
}

void BlockService::want_turn_end() {
  if (!std::exchange(turn_end_wanted_, true)) executor_.at_turn_end(turn_end_);
}

void BlockService::end_turn() {
  turn_end_wanted_ = false;
  for (u64 queues = std::exchange(to_signal_, 0); queues != 0; queues &= queues - 1)
    hands_.signal(static_cast<unsigned>(std::countr_zero(queues)));
  if (quiet_ != nullptr && in_flight_ == 0) std::exchange(quiet_, nullptr)->release();
}

BlockService::Flight::Flight(BlockService& service, unsigned queue)
    : service_{service}, queue_{queue}, begin_{service.executor_.now()} {
  ++service_.in_flight_;
  service_.core_.queue(queue_).begin();
}

BlockService::Flight::~Flight() {
  service_.core_.queue(queue_).end(service_.executor_.now() - begin_);
  if (--service_.in_flight_ == 0 && service_.quiet_ != nullptr) service_.want_turn_end();
}

}  // namespace bulkhead::device
