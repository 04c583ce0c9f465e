// The translator of one vCPU: finds or makes the block for RIP, enters it, and does what translated code comes back
// for.
#pragma once
#include <memory>

#include "base/result.h"
#include "engine/dbt/cache/perf_map.h"
#include "engine/dbt/cpu/block_runner.h"

namespace bulkhead::engine::dbt {

// `cpu`'s state must lie in a VcpuArena. `cache_bytes` bounds the translated code and its descriptions. What it
// translates is noted in `perf_map`, if there is one.
Result<std::unique_ptr<BlockRunner>> make_translator(Cpu& cpu, u64 cache_bytes, PerfMap* perf_map = nullptr);

// Names and values of the translator's own counters, in the order of Vcpu::counters(). Any thread.
struct TranslatorCounters {
  std::atomic<u64> blocks{0}, instructions{0}, lookups{0}, links{0}, misses_interpreted{0}, interpreter_calls{0},
      invalidations{0}, flushes{0}, host_faults{0}, steps{0}, fills{0}, skipped_rounds{0}, windows_missed{0},
      jump_flushes{0};
};
const TranslatorCounters& translator_counters(const BlockRunner& runner);

}  // namespace bulkhead::engine::dbt
