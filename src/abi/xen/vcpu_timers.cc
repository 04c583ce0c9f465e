#include "abi/xen/vcpu_timers.h"

#include <algorithm>

namespace bulkhead::abi::xen {

VcpuTimers::VcpuTimers(const DomainConfig& config, TimerService& service, const GuestClock& clock, Events& events,
                       Waits& waits, Vcpus& vcpus, DomainCounters& counters)
    : clock_{clock}, events_{events}, waits_{waits}, vcpus_{vcpus}, counters_{counters} {
  for (unsigned i = 0; i < config.vcpus; ++i) {
    states_.push_back(std::make_unique<State>());
    State& state = *states_.back();
    state.singleshot_timer = service.create([this, i] { singleshot_fired(i); });
    state.periodic_timer = service.create([this, i] { periodic_fired(i); });
    state.poll_timer = service.create([this, i] { poll_fired(i); });
  }
}

VcpuTimers::~VcpuTimers() = default;

// Looks again: the timer may have been stopped or set anew while its callback was on its way, and the two clocks may
// differ by a little.
bool VcpuTimers::due(Nanoseconds& deadline, Timer& timer) {
  if (deadline == kNever) return false;
  if (clock_.now() < deadline) {
    timer.arm(clock_.host_time(deadline));
    return false;
  }
  deadline = kNever;
  return true;
}

void VcpuTimers::set_singleshot(unsigned vcpu, Nanoseconds deadline) {
  State& state = *states_[vcpu];
  if (deadline <= clock_.now()) {
    stop_singleshot(vcpu);
    counters_[kTimersFired].add();
    return events_.raise_virq(vcpu, VIRQ_TIMER);
  }
  Lock lock{state.mutex};
  state.singleshot = std::min(deadline, kNever - 1);
  state.singleshot_timer->arm(clock_.host_time(deadline));
}

// The host's timer is left armed: the callback finds nothing to do, and setting it anew soon is the usual case.
void VcpuTimers::stop_singleshot(unsigned vcpu) {
  Lock lock{states_[vcpu]->mutex};
  states_[vcpu]->singleshot = kNever;
}

void VcpuTimers::singleshot_fired(unsigned vcpu) {
  State& state = *states_[vcpu];
  {
    Lock lock{state.mutex};
    if (!due(state.singleshot, *state.singleshot_timer)) return;
  }
  counters_[kTimersFired].add();
  events_.raise_virq(vcpu, VIRQ_TIMER);
}

void VcpuTimers::set_periodic(unsigned vcpu, Nanoseconds period) {
  State& state = *states_[vcpu];
  Lock lock{state.mutex};
  state.period = period;
  state.next_tick = clock_.now() + period;
  state.periodic_timer->arm(clock_.host_time(state.next_tick));
}

void VcpuTimers::stop_periodic(unsigned vcpu) {
  State& state = *states_[vcpu];
  Lock lock{state.mutex};
  state.next_tick = kNever;
  state.periodic_timer->disarm();
}

// Ticks that were missed are not made up for.
void VcpuTimers::periodic_fired(unsigned vcpu) {
  State& state = *states_[vcpu];
  {
    Lock lock{state.mutex};
    const Nanoseconds tick = state.next_tick;
    if (!due(state.next_tick, *state.periodic_timer)) return;
    const Nanoseconds late = clock_.now() - tick;
    state.next_tick = tick + (late / state.period + 1) * state.period;
    state.periodic_timer->arm(clock_.host_time(state.next_tick));
  }
  counters_[kTimersFired].add();
  events_.raise_virq(vcpu, VIRQ_TIMER);
}

void VcpuTimers::set_poll(unsigned vcpu, Nanoseconds deadline) {
  State& state = *states_[vcpu];
  Lock lock{state.mutex};
  state.poll = deadline;
  state.poll_timer->arm(clock_.host_time(deadline));
}

void VcpuTimers::stop_poll(unsigned vcpu) {
  Lock lock{states_[vcpu]->mutex};
  states_[vcpu]->poll = kNever;
}

void VcpuTimers::poll_fired(unsigned vcpu) {
  State& state = *states_[vcpu];
  {
    Lock lock{state.mutex};
    if (!due(state.poll, *state.poll_timer)) return;
  }
  waits_.time_out(vcpu);
  vcpus_.notify(vcpu);
}

}  // namespace bulkhead::abi::xen
