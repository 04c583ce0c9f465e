// vcpu_op: bringing vCPUs up and down, their timers, and the areas they register [xen/vcpu.h].
#include "abi/xen/domain_parts.h"
#include "abi/xen/errors.h"
#include "base/bits.h"

namespace bulkhead::abi::xen {
namespace {
constexpr u64 kShortestPeriod = 1'000'000;             // ns, Xen's limit for unprivileged guests
constexpr u64 kLongestPeriod = u64{1} << 62;           // what a signed deadline can hold
constexpr Nanoseconds kShowRunstateEvery = 1'000'000;  // to a guest that runs without a break

i64 register_vcpu_info(DomainParts& d, Guest& guest, unsigned vcpu, u64 at) {
  vcpu_register_vcpu_info_t arg;
  if (!guest.read(at, arg)) return -kXEFAULT;
  if (d.areas.registered(vcpu) || (vcpu != guest.vcpu() && d.waits.online(vcpu))) return -kXEINVAL;
  if (arg.offset > kPageSize - sizeof(vcpu_info_t) || !is_aligned(arg.offset, 8)) return -kXEINVAL;
  std::byte* const page = d.frames.hold(arg.mfn, Hold::kWrite);  // for good: there is no way back
  if (page == nullptr) return -kXEINVAL;
  d.events.relocate(vcpu, reinterpret_cast<vcpu_info_t*>(page + arg.offset));
  return 0;
}

bool engine_keeps(DomainParts& d, Guest& guest, unsigned vcpu, u64 area, bool runstate) {
  engine::XenEvents* const engine = d.config.engine_events;
  if (engine == nullptr || vcpu != guest.vcpu() || area == 0) return false;
  return runstate ? engine->set_runstate_area(vcpu, {area}) : engine->set_time_area(vcpu, {area});
}

// Written at the vCPU's next hypercall where it is not the caller's own.
i64 register_area(DomainParts& d, Guest& guest, unsigned vcpu, u64 at, bool runstate) {
  u64 area = 0;
  if (!guest.read(at, area)) return -kXEFAULT;
  DomainParts::VcpuData& data = d.vcpu[vcpu];
  if (engine_keeps(d, guest, vcpu, area, runstate)) area = 0;
  (runstate ? data.runstate_area : data.time_area) = area;
  data.areas_stale = true;
  if (vcpu == guest.vcpu()) refresh_areas(d, guest);
  return 0;
}

i64 set_singleshot(DomainParts& d, Guest& guest, u64 at) {
  vcpu_set_singleshot_timer_t arg;
  if (!guest.read(at, arg)) return -kXEFAULT;
  if ((arg.flags & VCPU_SSHOTTMR_future) && arg.timeout_abs_ns < d.clock.now()) return -kXETIME;
  d.timers.set_singleshot(guest.vcpu(), arg.timeout_abs_ns);
  // A guest that never blocks still sees its runstate grow, at its ticks.
  DomainParts::VcpuData& data = d.vcpu[guest.vcpu()];
  if (data.runstate_area != 0 && d.clock.now() - data.runstate_shown > kShowRunstateEvery) data.areas_stale = true;
  return 0;
}

i64 set_periodic(DomainParts& d, Guest& guest, u64 at) {
  vcpu_set_periodic_timer_t arg;
  if (!guest.read(at, arg)) return -kXEFAULT;
  if (arg.period_ns < kShortestPeriod || arg.period_ns > kLongestPeriod) return -kXEINVAL;
  d.timers.set_periodic(guest.vcpu(), arg.period_ns);
  return 0;
}

i64 bring_up(DomainParts& d, unsigned vcpu) {
  if (!d.waits.set_online(vcpu, true)) {
    d.runstates.set(vcpu, Runstate::kRunning);
    d.vcpus.notify(vcpu);
  }
  return 0;
}

// The machine hears of one that takes itself down by the answer, of another by may_run().
Answer take_down(DomainParts& d, Guest& guest, unsigned vcpu) {
  if (d.waits.set_online(vcpu, false)) d.runstates.set(vcpu, Runstate::kOffline);
  return {0, vcpu == guest.vcpu() ? After::kDown : After::kRun};
}

i64 perform(DomainParts& d, Guest& guest, u64 command, unsigned vcpu, u64 at) {
  const bool self = vcpu == guest.vcpu();
  switch (command) {
    case VCPUOP_initialise:
      return d.waits.online(vcpu) ? -kXEEXIST : d.vcpus.initialise(guest.caller, vcpu, at);
    case VCPUOP_up:
      return bring_up(d, vcpu);
    case VCPUOP_is_up:
      return d.waits.online(vcpu);
    case VCPUOP_get_runstate_info:
      return guest.write(at, d.runstates.info(vcpu, self)) ? 0 : -kXEFAULT;
    case VCPUOP_register_runstate_memory_area:
      return register_area(d, guest, vcpu, at, true);
    case VCPUOP_register_vcpu_time_memory_area:
      return register_area(d, guest, vcpu, at, false);
    case VCPUOP_set_periodic_timer:
      return self ? set_periodic(d, guest, at) : -kXEINVAL;
    case VCPUOP_stop_periodic_timer:
      d.timers.stop_periodic(vcpu);
      return 0;
    case VCPUOP_set_singleshot_timer:
      return self ? set_singleshot(d, guest, at) : -kXEINVAL;
    case VCPUOP_stop_singleshot_timer:
      if (!self) return -kXEINVAL;
      d.timers.stop_singleshot(vcpu);
      return 0;
    case VCPUOP_register_vcpu_info:
      return register_vcpu_info(d, guest, vcpu, at);
    case VCPUOP_send_nmi:
      d.vcpus.send_nmi(vcpu);
      return 0;
    case VCPUOP_get_physid:
      return -kXEINVAL;  // for vCPUs pinned to CPUs of the host by its administrator
    default:
      return d.unknown_operation().value;
  }
}

// The host's stores come in their order, as an x86 guest expects of its own: the calls keep the compiler from moving
// them.
void show_runstate(DomainParts& d, Guest& guest, DomainParts::VcpuData& data) {
  const u64 area = data.runstate_area;
  vcpu_runstate_info_t info = d.runstates.info(guest.vcpu(), true);
  data.runstate_shown = d.clock.now();
  const bool flagged = bit(d.assists, VMASST_TYPE_runstate_update_flag);
  const u64 entry = area + offsetof(vcpu_runstate_info_t, state_entry_time);
  const u64 final_time = info.state_entry_time;
  if (flagged) {  // readers wait while the top bit is set
    info.state_entry_time |= XEN_RUNSTATE_UPDATE;
    if (!guest.write(entry, info.state_entry_time)) return;
  }
  if (!guest.write(area, info) || !flagged) return;
  (void)guest.write(entry, final_time);
}

void show_time(DomainParts& d, Guest& guest, u64 area) {
  vcpu_time_info_t info = d.clock.time_info();
  info.version = 1;
  if (!guest.write(area, info)) return;
  (void)guest.write(area, u32{2});
}
}  // namespace

void refresh_areas(DomainParts& d, Guest& guest) {
  DomainParts::VcpuData& data = d.vcpu[guest.vcpu()];
  if (!data.areas_stale.exchange(false)) return;
  if (data.runstate_area != 0) show_runstate(d, guest, data);
  if (const u64 area = data.time_area; area != 0) show_time(d, guest, area);
}

Answer vcpu_op(DomainParts& domain, Guest& guest, const HypercallArgs& args) {
  if (args[1] >= domain.config.vcpus) return {-kXENOENT};
  const auto vcpu = static_cast<unsigned>(args[1]);
  if (args[0] == VCPUOP_down) return take_down(domain, guest, vcpu);
  return {perform(domain, guest, args[0], vcpu, args[2])};
}

}  // namespace bulkhead::abi::xen
