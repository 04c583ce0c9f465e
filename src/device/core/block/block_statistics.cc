#include "device/core/block/block_statistics.h"

#include "device/core/block/block_core.h"

namespace bulkhead::device {

BlockStatistics statistics_of(const BlockCore& core) {
  BlockStatistics all;
  const telemetry::CounterSet& counters = core.counters();
  for (std::size_t i = 0; i < counters.size(); ++i) all.counters.emplace_back(counters.name(i), counters[i].value());
  for (unsigned i = 0; i < BlockCore::kMaxQueues; ++i) {
    const BlockQueueStats& queue = core.queue(i);
    const telemetry::Histogram& latency = queue.latency();
    if (queue.deepest() == 0) continue;
    all.queues.resize(i + 1);
    all.queues[i] = {latency.count(),          queue.depth(),           queue.deepest(), latency.sum(),
                     latency.percentile(50.0), latency.percentile(99.0)};
  }
  return all;
}

}  // namespace bulkhead::device
