#include "abi/xen/vcpu_timers.h"

#include <algorithm>

namespace bulkhead::abi::xen {

VcpuTimers::VcpuTimers(const DomainConfig& config, TimerService& service, const GuestClock& clock, Events& events,
                       Waits& waits, Vcpus& vcpus, DomainCounters& counters)
    : clock_{clock}, events_{events}, waits_{waits}, vcpus_{vcpus}, counters_{counters} {
  for (unsigned i = 0; i < config.vcpus; ++i) {
    states_.push_back(std::make_unique<State>());
    State& state = *states_.back();
    Lock lock{state.mutex};
    state.singleshot.timer = service.create([this, i] {
      if (due(i, &State::singleshot)) tick(i);
    });
    state.periodic.timer = service.create([this, i] {
      if (due(i, &State::periodic)) tick(i);
    });
    state.poll.timer = service.create([this, i] {
      if (!due(i, &State::poll)) return;
      waits_.time_out(i);
      vcpus_.notify(i);
    });
  }
}

VcpuTimers::~VcpuTimers() = default;

void VcpuTimers::set(Alarm& alarm, Nanoseconds deadline) {
  alarm.deadline = std::min(deadline, kNever - 1);
  alarm.timer->arm(clock_.host_time(deadline));
}

// The host's timer is left armed: the callback finds nothing to do, and setting it anew soon is the usual case.
void VcpuTimers::stop(unsigned vcpu, Alarm State::* which) {
  State& state = *states_[vcpu];
  Lock lock{state.mutex};
  (state.*which).deadline = kNever;
}

// In the host's timer's callback. Looks again: the alarm may have been stopped or set anew while the callback was on
// its way, and the two clocks may differ by a little. Ticks that were missed are not made up for.
bool VcpuTimers::due(unsigned vcpu, Alarm State::* which) {
  State& state = *states_[vcpu];
  Lock lock{state.mutex};
  Alarm& alarm = state.*which;
  if (alarm.deadline == kNever) return false;
  const Nanoseconds now = clock_.now();
  if (now < alarm.deadline) {
    alarm.timer->arm(clock_.host_time(alarm.deadline));
    return false;
  }
  if (alarm.period == 0)
    alarm.deadline = kNever;
  else
    set(alarm, alarm.deadline + ((now - alarm.deadline) / alarm.period + 1) * alarm.period);
  return true;
}

void VcpuTimers::tick(unsigned vcpu) {
  counters_[kTimersFired].add();
  events_.raise_virq(vcpu, VIRQ_TIMER);
}

void VcpuTimers::set_singleshot(unsigned vcpu, Nanoseconds deadline) {
  if (deadline <= clock_.now()) {
    stop_singleshot(vcpu);
    return tick(vcpu);
  }
  State& state = *states_[vcpu];
  Lock lock{state.mutex};
  set(state.singleshot, deadline);
}

void VcpuTimers::stop_singleshot(unsigned vcpu) { stop(vcpu, &State::singleshot); }

void VcpuTimers::set_periodic(unsigned vcpu, Nanoseconds period) {
  State& state = *states_[vcpu];
  Lock lock{state.mutex};
  state.periodic.period = period;
  set(state.periodic, clock_.now() + period);
}

void VcpuTimers::stop_periodic(unsigned vcpu) { stop(vcpu, &State::periodic); }

void VcpuTimers::set_poll(unsigned vcpu, Nanoseconds deadline) {
  State& state = *states_[vcpu];
  Lock lock{state.mutex};
  set(state.poll, deadline);
}

void VcpuTimers::stop_poll(unsigned vcpu) { stop(vcpu, &State::poll); }

}  // namespace bulkhead::abi::xen
