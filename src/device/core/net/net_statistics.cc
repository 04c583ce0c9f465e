#include "device/core/net/net_statistics.h"

#include "device/core/net/net_core.h"

namespace bulkhead::device {
namespace {

NetStatistics::Direction numbers_of(const NetCore::Direction& direction) {
  NetStatistics::Direction all;
  for (std::size_t i = 0; i < direction.counters.size(); ++i)
    all.counters.emplace_back(direction.counters.name(i), direction.counters[i].value());
  all.depth = direction.depth.load(std::memory_order_relaxed);
  all.deepest = direction.deepest.load(std::memory_order_relaxed);
  all.sum_ns = direction.latency.sum();
  all.p50_ns = direction.latency.percentile(50.0);
  all.p99_ns = direction.latency.percentile(99.0);
  return all;
}

}  // namespace

NetStatistics statistics_of(const NetCore& core) {
  NetStatistics all;
  all.link_up = core.link_up();
  all.in_kernel = core.in_kernel();
  all.mac = net::text_of(core.mac());
  all.mtu = core.mtu();
  for (unsigned i = 0; i < core.pair_count(); ++i)
    all.queues.push_back({numbers_of(core.out(i)), numbers_of(core.in(i))});
  return all;
}

}  // namespace bulkhead::device
