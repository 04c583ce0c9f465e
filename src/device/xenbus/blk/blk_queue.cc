#include "device/xenbus/blk/blk_queue.h"

#include "base/clock.h"

namespace bulkhead::device::xenbus {
namespace {

// Responses may wait for company this long before the frontend gets its event, and no longer.
constexpr Nanoseconds kNotifyDelay = 100'000;

std::vector<std::byte*> addresses(const std::vector<GrantedPage>& pages) {
  std::vector<std::byte*> list;
  for (const GrantedPage& page : pages) list.push_back(page.data());
  return list;
}

}  // namespace

BlkQueue::BlkQueue(BlkAbi abi, std::vector<GrantedPage> pages, BlkRequests requests, BlkCounters& counters)
    : abi_{abi},
      pages_{std::move(pages)},
      ring_{addresses(pages_), entry_bytes(abi)},
      requests_{std::move(requests)},
      counters_{counters} {}

void BlkQueue::notify() {
  if (!ring_.notify_wanted()) return;
  counters_[BlkCounter::kNotifications].add();
  channel_->notify();
}

BlkQueue::Served BlkQueue::finish() {
  notify();
  if (!ring_.overrun() || broken_) return Served::kAll;
  broken_ = true;
  counters_[BlkCounter::kOverruns].add();
  return Served::kOverrun;
}

BlkQueue::Served BlkQueue::serve(const std::function<bool()>& stop) {
  const HostClock clock;
  Nanoseconds notified = clock.now();
  std::array<std::byte, kMaxEntryBytes> entry;
  const std::span raw = std::span{entry}.first(entry_bytes(abi_));
  for (u32 turn = 0; turn < ring_.size() && !stop(); ++turn) {
    if (!ring_.take(raw)) {
      if (ring_.sleep()) return finish();
      continue;
    }
    const BlkRequest request = decode_request(abi_, raw);
    const i16 status = requests_.run(request);
    ring_.respond(encode_response(abi_, request, status).bytes());
    const Nanoseconds now = clock.now();
    if (now - notified < kNotifyDelay) continue;
    notify();
    notified = now;
  }
  notify();
  return Served::kSome;
}

}  // namespace bulkhead::device::xenbus
