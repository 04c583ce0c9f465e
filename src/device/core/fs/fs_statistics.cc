#include "device/core/fs/fs_statistics.h"

#include "device/core/fs/fs_core.h"
#include "fs/server/counters.h"

namespace bulkhead::device {

FsStatistics statistics_of(const FsCore& core, const fs::Counts& server) {
  FsStatistics out;
  const telemetry::CounterSet& counters = core.counters();
  for (std::size_t i = 0; i < counters.size(); ++i)
    out.counters.emplace_back(std::string{counters.name(i)}, counters[i].value());
  for (std::size_t i = 0; i < fs::kCountNames.size(); ++i)
    out.counters.emplace_back(std::string{fs::kCountNames[i]}, server.value(static_cast<fs::Count>(i)));
  for (unsigned opcode = 0; opcode < FsCore::kOpcodes; ++opcode) {
    if (core.requests(opcode) == 0) continue;
    const telemetry::Histogram& latency = core.latency(opcode);
    out.requests.push_back({std::string{fs_opcode_name(opcode)}, core.requests(opcode), latency.sum(),
                            latency.percentile(50), latency.percentile(99)});
  }
  out.depth = core.depth();
  out.deepest = core.deepest();
  return out;
}

}  // namespace bulkhead::device
