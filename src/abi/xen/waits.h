// What vCPUs wait for after sched_op's block and poll, and whether they are up. Any thread.
#pragma once
#include <array>
#include <atomic>
#include <memory>

#include "abi/xen/vcpu_areas.h"

namespace bulkhead::abi::xen {

class Waits {
 public:
  explicit Waits(const VcpuAreas& areas) : areas_{areas} { vcpus_[0].online = true; }

  // Each is followed by a look at what is waited for, and undone by end(): an event that comes between is not lost.
  void begin_block(unsigned vcpu) { vcpus_[vcpu].waits_for = kUpcall; }
  void begin_poll(unsigned vcpu, i64 port_or_any) {
    vcpus_[vcpu].woken = false;
    vcpus_[vcpu].waits_for = port_or_any;
  }
  void end(unsigned vcpu) { vcpus_[vcpu].waits_for = kNothing; }

  // An event arrived at `port`: true if `vcpu` polls for it.
  bool wake_poller(unsigned vcpu, u32 port) {
    const i64 what = vcpus_[vcpu].waits_for.load();
    if (what != kAnyPort && what != static_cast<i64>(port)) return false;
    vcpus_[vcpu].woken = true;
    return true;
  }
  void time_out(unsigned vcpu) { vcpus_[vcpu].woken = true; }

  bool may_run(unsigned vcpu) {
    State& state = vcpus_[vcpu];
    if (!state.online.load()) return false;
    if (state.waits_for.load() == kNothing) return true;
    if (!areas_.upcall(vcpu) && !(state.waits_for.load() != kUpcall && state.woken.load())) return false;
    end(vcpu);
    return true;
  }
  bool online(unsigned vcpu) const { return vcpus_[vcpu].online.load(); }
  bool set_online(unsigned vcpu, bool online) { return vcpus_[vcpu].online.exchange(online); }

  static constexpr i64 kAnyPort = -1;

 private:
  static constexpr i64 kNothing = -2, kUpcall = -3;
  struct State {
    std::atomic<bool> online{false};
    std::atomic<i64> waits_for{kNothing};  // a port, or one of the above
    std::atomic<bool> woken{false};        // a polled port or the timeout came
  };
  const VcpuAreas& areas_;
  std::array<State, kMaxVcpus> vcpus_;
};

}  // namespace bulkhead::abi::xen
