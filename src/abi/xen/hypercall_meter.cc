#include "abi/xen/hypercall_meter.h"

namespace bulkhead::abi::xen {

HypercallMeter::~HypercallMeter() {
  for (const auto& of_vcpu : histograms_)
    for (const auto& slot : of_vcpu) delete slot.load(std::memory_order_relaxed);
}

std::vector<HypercallStatistics> HypercallMeter::statistics() const {
  std::vector<HypercallStatistics> all;
  for (u64 number = 0; number <= kHypercallNumbers; ++number) {
    telemetry::Histogram sum;
    for (const auto& of_vcpu : histograms_)
      if (const auto* histogram = of_vcpu[number].load(std::memory_order_acquire)) sum.add(*histogram);
    if (sum.count() == 0) continue;
    all.push_back({number, hypercall_name(number), sum.count(), sum.sum(), sum.percentile(50), sum.percentile(90),
                   sum.percentile(99)});
  }
  return all;
}

}  // namespace bulkhead::abi::xen
