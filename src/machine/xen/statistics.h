// The hypercalls of a zone as its report shows them.
#pragma once
#include <vector>

#include "abi/xen/domain.h"
#include "machine/machine.h"

namespace bulkhead::machine {

inline std::vector<HypercallStatistics> hypercall_statistics(const abi::xen::Domain& domain) {
  std::vector<HypercallStatistics> all;
  for (const auto& h : domain.hypercall_statistics())
    all.push_back({h.name, h.count, h.sum_ns, h.p50_ns, h.p90_ns, h.p99_ns, h.number});
  return all;
}

}  // namespace bulkhead::machine
