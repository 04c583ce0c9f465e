// A differential run: batches of random cases in processes that may die, native outcomes compared with those of each
// runner.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/insn/case.h"

namespace bulkhead::insn {

struct CampaignOptions {
  u64 seed = 1;
  u64 first = 0;
  u64 cases = 20000;
  bool interpreter = true, translator = true;
  unsigned max_reports = 10;  // reproducers printed, over all runners
  bool verbose = false;       // print every case
};

struct CampaignResult {
  u64 cases = 0;  // run to their end on the host and every runner
  u64 instructions = 0;
  u64 faults = 0;      // cases that end in an exception on the host
  u64 mismatches = 0;  // (case, runner) pairs
  u64 dead_flags = 0;  // runs of a runner that may lose dead flags at an exception, and did
  u64 crashes = 0;     // cases that killed the process
  std::vector<std::string> reports;
};

// `progress` is called after each batch.
CampaignResult run_campaign(const CampaignOptions& options, const std::function<void(const CampaignResult&)>& progress);

}  // namespace bulkhead::insn
