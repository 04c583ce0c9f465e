// How long each vCPU ran, waited for a CPU (steal), was blocked or offline [xen/vcpu.h "vcpu_runstate_info"].
#pragma once
#include <xen/vcpu.h>

#include <array>
#include <atomic>

#include "abi/xen/guest_clock.h"
#include "base/sync.h"

namespace bulkhead::abi::xen {

// Any thread.
class Runstates {
 public:
  Runstates(const DomainConfig& config, const GuestClock& clock);
  void set(unsigned vcpu, Runstate state);
  // Brings the account up to now. `on_its_thread`: steal is looked up too, at most every 10 ms.
  vcpu_runstate_info_t info(unsigned vcpu, bool on_its_thread);

 private:
  struct State {
    Mutex mutex;
    vcpu_runstate_info_t info BH_GUARDED_BY(mutex){};
    Nanoseconds accounted BH_GUARDED_BY(mutex) = 0;        // until when `info.time` is right
    Nanoseconds steal_looked_up BH_GUARDED_BY(mutex) = 0;  // when
    u64 steal BH_GUARDED_BY(mutex) = 0;                    // what it was then
    bool steal_known BH_GUARDED_BY(mutex) = false;
  };
  void account(State& state, Nanoseconds now) BH_REQUIRES(state.mutex);
  void take_steal(State& state, unsigned vcpu, Nanoseconds now) BH_REQUIRES(state.mutex);

  const std::function<u64(unsigned)> steal_ns_;
  const GuestClock& clock_;
  std::array<State, kMaxVcpus> states_;
};

}  // namespace bulkhead::abi::xen
