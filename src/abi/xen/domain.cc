#include "abi/xen/domain.h"

#include <xen/hvm/params.h>

#include <utility>

#include "abi/xen/domain_parts.h"
#include "abi/xen/errors.h"
#include "base/assert.h"
#include "base/bits.h"

namespace bulkhead::abi::xen {
namespace {
constexpr u64 kConsoleStartCredit = 256_KiB;
// Above these the guest asked for another kind of thing than we can put into an Upcall.
constexpr u64 kCallbackGsi = u64{HVM_PARAM_CALLBACK_TYPE_GSI}, kCallbackVector = u64{HVM_PARAM_CALLBACK_TYPE_VECTOR};
}  // namespace

Upcall callback(u64 via, unsigned vcpu) {
  if (via >> 56 == kCallbackVector && (via & 0xff) >= 0x10) return {Upcall::How::kDirect, static_cast<u8>(via), 0};
  if (via != 0 && via >> 56 == kCallbackGsi && vcpu == 0) return {Upcall::How::kGsi, 0, static_cast<u32>(via)};
  return {};
}

DomainParts::DomainParts(DomainConfig config_in, const XenPages& pages_in, Frames& frames_in, Vcpus& vcpus_in,
                         TimerService& service)
    : config{std::move(config_in)},
      pages{pages_in},
      frames{frames_in},
      vcpus{vcpus_in},
      areas{pages.shared_info},
      waits{areas},
      clock{config, service.clock()},
      runstates{config, clock},
      events{config, areas, waits, frames, vcpus, counters},
      grants{config, pages, frames, counters},
      grant_maps{config, grants, frames, counters},
      timers{config, service, clock, events, waits, vcpus, counters},
      assists{config.vm_assists},
      console_credit{kConsoleStartCredit} {}

Answer DomainParts::dispatch(Caller& caller, u64 number, const HypercallArgs& args) {
  if (guest_calls != nullptr)
    if (const auto answer = guest_calls->hypercall(caller, number, args)) return *answer;
  Guest guest{caller, counters};
  switch (number) {
    case __HYPERVISOR_memory_op:
      return memory_op(*this, guest, args);
    case __HYPERVISOR_multicall:
      return multicall(*this, guest, args);
    case __HYPERVISOR_set_timer_op:
      if (args[0] == 0)
        timers.stop_singleshot(caller.vcpu());
      else
        timers.set_singleshot(caller.vcpu(), args[0]);
      return {};
    case __HYPERVISOR_xen_version:
      return xen_version(*this, guest, args);
    case __HYPERVISOR_console_io:
      return console_io(*this, guest, args);
    case __HYPERVISOR_grant_table_op:
      return grant_table_op(*this, guest, args);
    case __HYPERVISOR_vm_assist:
      return vm_assist(*this, args);
    case __HYPERVISOR_vcpu_op:
      return vcpu_op(*this, guest, args);
    case __HYPERVISOR_sched_op:
      return sched_op(*this, guest, args);
    case __HYPERVISOR_event_channel_op:
      return event_channel_op(*this, guest, args);
    case __HYPERVISOR_hvm_op:
      return hvm_op(*this, guest, args);
    case __HYPERVISOR_xenpmu_op:
      return {-kXEOPNOTSUPP};  // as Xen without vpmu=
    case __HYPERVISOR_platform_op:
    case __HYPERVISOR_sysctl:
    case __HYPERVISOR_domctl:
      return {-kXEPERM};  // dom0's
    default:
      counters[kUnknownHypercalls].add();
      return {-kXENOSYS};
  }
}

Domain::Domain(DomainConfig config, const XenPages& pages, Frames& frames, Vcpus& vcpus, TimerService& timers)
    : parts_{std::make_unique<DomainParts>(std::move(config), pages, frames, vcpus, timers)} {
  BH_ASSERT(parts_->config.vcpus >= 1 && parts_->config.vcpus <= kMaxVcpus);
  BH_ASSERT(!pages.grant_frames.empty() && pages.grant_frames.size() <= kGrantFrames * kPageSize);
  BH_ASSERT(pages.status_frames.size() * 8 >= pages.grant_frames.size());
  BH_ASSERT(parts_->config.engine_events == nullptr || !parts_->config.fifo_events);
  for (unsigned i = 0; i < kMaxVcpus; ++i) parts_->areas.set_masked(i, parts_->is_pv());
  for (unsigned i = 0; i < parts_->config.vcpus; ++i) update_time(i);
  update_wallclock();
  start_watchdogs(*parts_, timers);
}

Domain::~Domain() = default;

const DomainConfig& Domain::config() const { return parts_->config; }
void Domain::set_guest_calls(GuestCalls* calls) { parts_->guest_calls = calls; }

Answer Domain::hypercall(Caller& caller, u64 number, const std::array<u64, 6>& args) {
  const u64 begin = host_tsc();
  const unsigned vcpu = caller.vcpu();
  parts_->vcpu[vcpu].work = 0;
  const Answer answer = parts_->dispatch(caller, number, args);
  refresh(caller);
  parts_->meter.record(vcpu, number, parts_->clock.scale(host_tsc() - begin));
  return answer;
}

void Domain::refresh(Caller& caller) {
  if (!parts_->vcpu[caller.vcpu()].areas_stale.load(std::memory_order_relaxed)) [[likely]]
    return;
  Guest guest{caller, parts_->counters};
  refresh_areas(*parts_, guest);
}

std::vector<HypercallStatistics> Domain::hypercall_statistics() const { return parts_->meter.statistics(); }
const telemetry::CounterSet& Domain::counters() const { return parts_->counters; }

bool Domain::upcall_pending(unsigned vcpu) const { return parts_->areas.upcall(vcpu); }
bool Domain::upcall_masked(unsigned vcpu) const { return parts_->areas.masked(vcpu); }
void Domain::set_upcall_masked(unsigned vcpu, bool masked) { parts_->areas.set_masked(vcpu, masked); }
void Domain::set_upcall_pending(unsigned vcpu, bool pending) { parts_->areas.set_pending(vcpu, pending); }
std::byte* Domain::vcpu_info(unsigned vcpu) const { return reinterpret_cast<std::byte*>(&parts_->areas.info(vcpu)); }
void Domain::set_cr2(unsigned vcpu, u64 linear) { std::atomic_ref{parts_->areas.info(vcpu).arch.cr2}.store(linear); }
bool Domain::may_run(unsigned vcpu) { return parts_->waits.may_run(vcpu); }
void Domain::end_wait(unsigned vcpu) { parts_->waits.end(vcpu); }
bool Domain::online(unsigned vcpu) const { return parts_->waits.online(vcpu); }

void Domain::set_online(unsigned vcpu, bool online) {
  if (parts_->waits.set_online(vcpu, online) != online)
    set_runstate(vcpu, online ? Runstate::kRunning : Runstate::kOffline);
}

Upcall Domain::upcall(unsigned vcpu) const {
  if (const u8 vector = parts_->vcpu[vcpu].upcall_vector; vector != 0) return {Upcall::How::kLapic, vector, 0};
  return callback(parts_->hvm_params[HVM_PARAM_CALLBACK_IRQ], vcpu);
}

Nanoseconds Domain::system_time() const { return parts_->clock.now(); }

Result<void> Domain::start_engine_events() {
  engine::XenEvents* const engine = parts_->config.engine_events;
  if (engine == nullptr) return {};
  BH_TRY(engine->start(parts_->pages.shared_info, parts_->clock.now()));
  for (unsigned i = 0; i < parts_->config.vcpus; ++i) engine->set_vcpu_info(i, vcpu_info(i));
  return {};
}

void Domain::update_time(unsigned vcpu) {
  if (parts_->config.engine_events == nullptr) parts_->clock.publish(parts_->areas.info(vcpu).time);
  if (parts_->vcpu[vcpu].time_area != 0) parts_->vcpu[vcpu].areas_stale = true;
}

void Domain::update_wallclock() { parts_->clock.publish_wallclock(parts_->areas.shared()); }

void Domain::set_runstate(unsigned vcpu, Runstate state) {
  parts_->runstates.set(vcpu, state);
  if (parts_->vcpu[vcpu].runstate_area != 0) parts_->vcpu[vcpu].areas_stale = true;
}

u64 Domain::hvm_param(u32 index) const {
  BH_ASSERT(index < kHvmParams);
  return parts_->hvm_params[index];
}
void Domain::set_hvm_param(u32 index, u64 value) {
  BH_ASSERT(index < kHvmParams);
  parts_->hvm_params[index] = value;
}

u64 Domain::vm_assists() const { return parts_->assists; }
void Domain::raise_virq(unsigned vcpu, u32 virq) { parts_->events.raise_virq(vcpu, virq); }
EventHost& Domain::events() { return parts_->events; }
GrantHost& Domain::grants() { return parts_->grants; }

}  // namespace bulkhead::abi::xen
