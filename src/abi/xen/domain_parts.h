// What a Domain is made of, and the hypercalls' handlers: for this room only.
#pragma once
#include <array>
#include <atomic>
#include <memory>

#include "abi/xen/counters.h"
#include "abi/xen/domain.h"
#include "abi/xen/events.h"
#include "abi/xen/grant_maps.h"
#include "abi/xen/grant_table.h"
#include "abi/xen/guest_clock.h"
#include "abi/xen/guest_copy.h"
#include "abi/xen/hypercall_meter.h"
#include "abi/xen/runstate.h"
#include "abi/xen/vcpu_areas.h"
#include "abi/xen/vcpu_timers.h"
#include "abi/xen/waits.h"

namespace bulkhead::abi::xen {

inline constexpr u32 kHvmParams = 39;

// In the order in which they depend on those before them.
struct DomainParts {
  DomainParts(DomainConfig config, const XenPages& pages, Frames& frames, Vcpus& vcpus, TimerService& timers);

  const DomainConfig config;
  const XenPages pages;
  Frames& frames;
  Vcpus& vcpus;
  DomainCounters counters;
  VcpuAreas areas;
  Waits waits;
  GuestClock clock;
  Runstates runstates;
  Events events;
  GrantTable grants;
  GrantMaps grant_maps;
  VcpuTimers timers;
  HypercallMeter meter;
  GuestCalls* guest_calls = nullptr;

  std::atomic<u64> assists{0};  // VMASST_TYPE_*, a bit each
  std::array<std::atomic<u64>, kHvmParams> hvm_params{};

  // What a vCPU has asked for, and what it owes; only its own thread touches what is not atomic.
  struct VcpuData {
    std::atomic<u8> upcall_vector{0};
    std::atomic<u64> runstate_area{0}, time_area{0};  // the guest's virtual addresses; 0: none
    std::atomic<bool> areas_stale{false};             // one of the two owes an update
    Nanoseconds runstate_shown = 0;                   // when
    bool in_multicall = false;
    u64 work = 0;  // done in this hypercall, in units of about 100 ns
  };
  std::array<VcpuData, kMaxVcpus> vcpu;

  // watchdog (sched_op) and console rate
  struct Watchdog {
    Nanoseconds deadline = 0;  // 0: off
    std::unique_ptr<Timer> timer;
  };
  Mutex watchdog_mutex;
  std::array<Watchdog, 2> watchdogs BH_GUARDED_BY(watchdog_mutex);
  Mutex console_mutex;
  u64 console_credit BH_GUARDED_BY(console_mutex) = 0;
  Nanoseconds console_credit_at BH_GUARDED_BY(console_mutex) = 0;

  bool is_self(u16 domid) const { return domid == DOMID_SELF || domid == config.domid; }
  bool is_pv() const { return config.kind == GuestKind::kPv; }
  Answer unknown_operation() {
    counters[kUnknownOperations].add();
    return {-38, After::kRun};
  }
  Answer dispatch(Caller& caller, u64 number, const std::array<u64, 6>& args);
};

// A hypercall may do so much before it has to give the vCPU a chance to be stopped; in units of DomainParts' `work`.
inline constexpr u64 kWorkLimit = u64{1} << 17;

// One per hypercall, in the file of its name.
using HypercallArgs = std::array<u64, 6>;
Answer event_channel_op(DomainParts& domain, Guest& guest, const HypercallArgs& args);
Answer grant_table_op(DomainParts& domain, Guest& guest, const HypercallArgs& args);
Answer vcpu_op(DomainParts& domain, Guest& guest, const HypercallArgs& args);
Answer sched_op(DomainParts& domain, Guest& guest, const HypercallArgs& args);
Answer memory_op(DomainParts& domain, Guest& guest, const HypercallArgs& args);
Answer hvm_op(DomainParts& domain, Guest& guest, const HypercallArgs& args);
Answer xen_version(DomainParts& domain, Guest& guest, const HypercallArgs& args);
Answer console_io(DomainParts& domain, Guest& guest, const HypercallArgs& args);
Answer multicall(DomainParts& domain, Guest& guest, const HypercallArgs& args);
Answer vm_assist(DomainParts& domain, const HypercallArgs& args);

// What HVM_PARAM_CALLBACK_IRQ asks for.
Upcall callback(u64 via, unsigned vcpu);
// Writes what the caller's registered areas are owed (runstate, time).
void refresh_areas(DomainParts& domain, Guest& guest);
void start_watchdogs(DomainParts& domain, TimerService& timers);

}  // namespace bulkhead::abi::xen
