// Each vCPU's timers: one-shot and periodic, which raise VIRQ_TIMER, and the one that ends a poll. Deadlines are in
// the guest's system time. Any thread.
#pragma once
#include <memory>
#include <vector>

#include "abi/xen/counters.h"
#include "abi/xen/events.h"
#include "abi/xen/guest_clock.h"
#include "abi/xen/waits.h"
#include "base/sync.h"

namespace bulkhead::abi::xen {

class VcpuTimers {
 public:
  VcpuTimers(const DomainConfig& config, TimerService& service, const GuestClock& clock, Events& events, Waits& waits,
             Vcpus& vcpus, DomainCounters& counters);
  ~VcpuTimers();

  void set_singleshot(unsigned vcpu, Nanoseconds deadline);
  void stop_singleshot(unsigned vcpu);
  void set_periodic(unsigned vcpu, Nanoseconds period);  // from now on
  void stop_periodic(unsigned vcpu);
  void set_poll(unsigned vcpu, Nanoseconds deadline);
  void stop_poll(unsigned vcpu);

 private:
  static constexpr Nanoseconds kNever = ~Nanoseconds{0};
  struct Alarm {
    Nanoseconds deadline = kNever;
    Nanoseconds period = 0;  // 0: once
    std::unique_ptr<Timer> timer;
  };
  struct State {
    Mutex mutex;
    Alarm singleshot BH_GUARDED_BY(mutex), periodic BH_GUARDED_BY(mutex), poll BH_GUARDED_BY(mutex);
  };

  void set(Alarm& alarm, Nanoseconds deadline);
  void stop(unsigned vcpu, Alarm State::* which);
  bool due(unsigned vcpu, Alarm State::* which);
  void tick(unsigned vcpu);

  const GuestClock& clock_;
  Events& events_;
  Waits& waits_;
  Vcpus& vcpus_;
  DomainCounters& counters_;
  std::vector<std::unique_ptr<State>> states_;
};

}  // namespace bulkhead::abi::xen
