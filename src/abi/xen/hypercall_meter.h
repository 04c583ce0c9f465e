// Hypercalls by number, with how long the answer took. Each vCPU has its own histograms, made at the first call of a
// number, so that counting costs no contention.
#pragma once
#include <array>
#include <atomic>
#include <memory>
#include <vector>

#include "abi/xen/domain.h"
#include "abi/xen/names.h"

namespace bulkhead::abi::xen {

// record() on the vCPU's thread, statistics() on any.
class HypercallMeter {
 public:
  ~HypercallMeter();
  void record(unsigned vcpu, u64 number, Nanoseconds duration) {
    auto& slot = histograms_[vcpu][number < kHypercallNumbers ? number : kHypercallNumbers];
    telemetry::Histogram* histogram = slot.load(std::memory_order_acquire);
    if (histogram == nullptr) [[unlikely]]
      slot.store(histogram = new telemetry::Histogram, std::memory_order_release);
    histogram->record(duration);
  }
  std::vector<HypercallStatistics> statistics() const;

 private:
  std::array<std::array<std::atomic<telemetry::Histogram*>, kHypercallNumbers + 1>, kMaxVcpus> histograms_{};
};

}  // namespace bulkhead::abi::xen
