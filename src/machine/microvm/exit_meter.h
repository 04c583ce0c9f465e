// How often the guest came out to us, by kind, and how long we kept it waiting.
#pragma once
#include <array>
#include <vector>

#include "base/clock.h"
#include "engine/exit.h"
#include "machine/microvm/microvm.h"
#include "telemetry/counter.h"

namespace bulkhead::machine {

// record() from any thread.
class ExitMeter {
 public:
  void record(const engine::Exit& exit, Nanoseconds handling) { histograms_[exit.index()].record(handling); }
  // One entry for each kind of exit, in the order of engine::kExitNames.
  std::vector<ExitStatistics> statistics() const {
    std::vector<ExitStatistics> all;
    for (std::size_t i = 0; i < histograms_.size(); ++i) {
      const telemetry::Histogram& h = histograms_[i];
      all.push_back({std::string{engine::kExitNames[i]}, h.count(), h.sum(), h.percentile(50), h.percentile(99)});
    }
    return all;
  }

 private:
  std::array<telemetry::Histogram, std::variant_size_v<engine::Exit>> histograms_;
};

}  // namespace bulkhead::machine
