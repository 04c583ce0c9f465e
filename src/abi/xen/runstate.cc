#include "abi/xen/runstate.h"

#include <fcntl.h>

#include <algorithm>
#include <cstdlib>

#include "base/fd.h"

namespace bulkhead::abi::xen {
namespace {
constexpr Nanoseconds kLookUpEvery = 10'000'000;

// Second number of schedstat: nanoseconds of waiting on a run queue. 0 where the host does not tell.
u64 thread_run_delay() {
  thread_local const UniqueFd file{::open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC)};
  if (!file) return 0;
  char text[128];
  const ssize_t length = ::pread(file.get(), text, sizeof text - 1, 0);
  if (length <= 0) return 0;
  text[length] = 0;
  char* second = nullptr;
  std::strtoull(text, &second, 10);
  return std::strtoull(second, nullptr, 10);
}
}  // namespace

Runstates::Runstates(const DomainConfig& config, const GuestClock& clock)
    : steal_ns_{config.steal_ns ? config.steal_ns : [](unsigned) { return thread_run_delay(); }}, clock_{clock} {
  const Nanoseconds now = clock_.now();
  for (unsigned i = 0; i < kMaxVcpus; ++i) {
    Lock lock{states_[i].mutex};
    states_[i].info.state = i == 0 ? RUNSTATE_running : RUNSTATE_offline;
    states_[i].info.state_entry_time = states_[i].accounted = now;
  }
}

void Runstates::account(State& state, Nanoseconds now) {
  if (now <= state.accounted) return;
  state.info.time[state.info.state] += now - state.accounted;
  state.accounted = now;
}

// The thread was kept waiting at moments that we took for running: they are moved from one account to the other.
void Runstates::take_steal(State& state, unsigned vcpu, Nanoseconds now) {
  if (state.steal_known && now - state.steal_looked_up < kLookUpEvery) return;
  const u64 steal = steal_ns_(vcpu);
  if (state.steal_known && steal > state.steal) {
    const u64 fresh = std::min(steal - state.steal, u64{state.info.time[RUNSTATE_running]});
    state.info.time[RUNSTATE_running] -= fresh;
    state.info.time[RUNSTATE_runnable] += fresh;
  }
  state.steal = steal;
  state.steal_known = true;
  state.steal_looked_up = now;
}

void Runstates::set(unsigned vcpu, Runstate next) {
  State& state = states_[vcpu];
  Lock lock{state.mutex};
  const Nanoseconds now = clock_.now();
  account(state, now);
  state.info.state = static_cast<int>(next);
  state.info.state_entry_time = now;
}

vcpu_runstate_info_t Runstates::info(unsigned vcpu, bool on_its_thread) {
  State& state = states_[vcpu];
  Lock lock{state.mutex};
  const Nanoseconds now = clock_.now();
  account(state, now);
  if (on_its_thread) take_steal(state, vcpu, now);
  return state.info;
}

}  // namespace bulkhead::abi::xen
