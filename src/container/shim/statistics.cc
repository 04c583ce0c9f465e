#include "container/shim/statistics.h"

#include "base/ints.h"
#include "github.com/containerd/cgroups/v2/stats/metrics.pb.h"

namespace bulkhead::container {

std::string metrics_of(const pod::StatsResponse& numbers) {
  const auto of = [&](const char* name) -> u64 {
    const auto found = numbers.values().find(name);
    return found == numbers.values().end() ? 0 : found->second;
  };
  io::containerd::cgroups::v2::Metrics out;
  out.mutable_pids()->set_current(of("pids.current"));
  out.mutable_pids()->set_limit(of("pids.max"));
  auto& cpu = *out.mutable_cpu();
  cpu.set_usage_usec(of("cpu.stat usage_usec"));
  cpu.set_user_usec(of("cpu.stat user_usec"));
  cpu.set_system_usec(of("cpu.stat system_usec"));
  cpu.set_nr_periods(of("cpu.stat nr_periods"));
  cpu.set_nr_throttled(of("cpu.stat nr_throttled"));
  cpu.set_throttled_usec(of("cpu.stat throttled_usec"));
  auto& memory = *out.mutable_memory();
  memory.set_usage(of("memory.current"));
  memory.set_usage_limit(of("memory.max"));
  memory.set_swap_usage(of("memory.swap.current"));
  memory.set_swap_limit(of("memory.swap.max"));
  memory.set_anon(of("memory.stat anon"));
  memory.set_file(of("memory.stat file"));
  memory.set_kernel_stack(of("memory.stat kernel_stack"));
  memory.set_slab(of("memory.stat slab"));
  memory.set_sock(of("memory.stat sock"));
  memory.set_shmem(of("memory.stat shmem"));
  memory.set_file_mapped(of("memory.stat file_mapped"));
  memory.set_file_dirty(of("memory.stat file_dirty"));
  memory.set_file_writeback(of("memory.stat file_writeback"));
  memory.set_inactive_anon(of("memory.stat inactive_anon"));
  memory.set_active_anon(of("memory.stat active_anon"));
  memory.set_inactive_file(of("memory.stat inactive_file"));
  memory.set_active_file(of("memory.stat active_file"));
  memory.set_unevictable(of("memory.stat unevictable"));
  memory.set_slab_reclaimable(of("memory.stat slab_reclaimable"));
  memory.set_slab_unreclaimable(of("memory.stat slab_unreclaimable"));
  memory.set_pgfault(of("memory.stat pgfault"));
  memory.set_pgmajfault(of("memory.stat pgmajfault"));
  auto& events = *out.mutable_memory_events();
  events.set_low(of("memory.events low"));
  events.set_high(of("memory.events high"));
  events.set_max(of("memory.events max"));
  events.set_oom(of("memory.events oom"));
  events.set_oom_kill(of("memory.events oom_kill"));
  auto& all = *out.mutable_io()->add_usage();
  all.set_rbytes(of("io.stat rbytes"));
  all.set_wbytes(of("io.stat wbytes"));
  all.set_rios(of("io.stat rios"));
  all.set_wios(of("io.stat wios"));
  return out.SerializeAsString();
}

}  // namespace bulkhead::container
