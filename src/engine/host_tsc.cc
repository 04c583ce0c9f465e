#include "engine/host_tsc.h"

#include <cpuid.h>
#include <linux/perf_event.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"

namespace bulkhead::engine {
namespace {

// [SDM-2A CPUID leaf 15H]: TSC = crystal * EBX / EAX, where the crystal's rate is told.
u64 from_cpuid() {
  u32 denominator = 0, numerator = 0, crystal = 0, edx = 0;
  if (__get_cpuid_max(0, nullptr) < 0x15) return 0;
  __cpuid(0x15, denominator, numerator, crystal, edx);
  if (denominator == 0 || numerator == 0 || crystal == 0) return 0;
  return u64{crystal} * numerator / denominator;
}

// The kernel's own conversion, which it shows beside every perf event: ns = ticks * mult >> shift.
u64 from_perf_page() {
  perf_event_attr attributes{};
  attributes.type = PERF_TYPE_SOFTWARE;
  attributes.size = sizeof attributes;
  attributes.config = PERF_COUNT_SW_DUMMY;
  attributes.exclude_kernel = 1;
  attributes.exclude_hv = 1;
  const UniqueFd fd{static_cast<int>(::syscall(SYS_perf_event_open, &attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC))};
  if (!fd) return 0;
  void* const page = ::mmap(nullptr, kPageSize, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (page == MAP_FAILED) return 0;
  const auto* const shown = static_cast<const perf_event_mmap_page*>(page);
  u64 hz = 0;
  if (shown->cap_user_time && shown->time_mult != 0 && shown->time_shift < 64)
    hz = static_cast<u64>((u128{1'000'000'000} << shown->time_shift) / shown->time_mult);
  ::munmap(page, kPageSize);
  return hz;
}

struct Instant {
  u64 ns, tsc;
};

// The reading of both clocks that the fewest ticks passed around.
Instant read_both() {
  Instant best{};
  u64 best_width = ~u64{0};
  for (int i = 0; i < 8; ++i) {
    timespec t{};
    const u64 before = __builtin_ia32_rdtsc();
    ::clock_gettime(CLOCK_MONOTONIC_RAW, &t);
    const u64 width = __builtin_ia32_rdtsc() - before;
    if (width >= best_width) continue;
    best_width = width;
    best = {static_cast<u64>(t.tv_sec) * 1'000'000'000 + static_cast<u64>(t.tv_nsec), before + width / 2};
  }
  return best;
}

u64 calibrate() {
  const Instant from = read_both();
  const timespec pause{0, 20'000'000};
  ::nanosleep(&pause, nullptr);
  const Instant to = read_both();
  const u64 elapsed = to.ns - from.ns;
  return elapsed == 0 ? 1'000'000'000 : static_cast<u64>(u128{to.tsc - from.tsc} * 1'000'000'000 / elapsed);
}

u64 find() {
  for (const u64 hz : {from_cpuid(), from_perf_page()})
    if (hz >= 100'000'000 && hz <= 20'000'000'000) return hz;
  return calibrate();
}

}  // namespace

u64 host_tsc_hz() {
  static const u64 hz = find();
  return hz;
}

}  // namespace bulkhead::engine
