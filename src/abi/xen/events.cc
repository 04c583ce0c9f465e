#include "abi/xen/events.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "abi/xen/errors.h"
#include "abi/xen/event_host_end.h"
#include "base/bits.h"

namespace bulkhead::abi::xen {
namespace {
constexpr bool per_vcpu(u32 virq) {
  return virq == VIRQ_TIMER || virq == VIRQ_DEBUG || virq == VIRQ_XENOPROF || virq == VIRQ_XENPMU;
}
}  // namespace

Events::Events(const DomainConfig& config, VcpuAreas& areas, Waits& waits, Frames& frames, Vcpus& vcpus,
               DomainCounters& counters)
    : config_{config},
      areas_{areas},
      waits_{waits},
      frames_{frames},
      vcpus_{vcpus},
      counters_{counters},
      channels_(kMaxPort + 1) {}

Events::~Events() = default;

void Events::notify(VcpuMask vcpus) {
  for (; vcpus != 0; vcpus &= vcpus - 1) vcpus_.notify(static_cast<unsigned>(std::countr_zero(vcpus)));
}

Events::Channel* Events::find(u32 port) {
  if (port != 0 && port < channels_.size() && channels_[port].state != State::kFree) return &channels_[port];
  counters_[kBadPorts].add();
  return nullptr;
}

Events::Channel* Events::allocate(u32& port) {
  for (u32 i = 1; i < channels_.size(); ++i)
    if (channels_[i].state == State::kFree) {
      port = i;
      channels_[i].priority = EVTCHN_FIFO_PRIORITY_DEFAULT;
      channels_[i].vcpu = 0;
      channels_[i].owed = false;
      return &channels_[i];
    }
  return nullptr;
}

i64 Events::alloc_unbound(u16 remote_domain, u32& port) {
  Lock lock{mutex_};
  Channel* const channel = allocate(port);
  if (channel == nullptr) return -kXENOSPC;
  channel->state = State::kUnbound;
  channel->remote_domain = name_of(remote_domain);
  return 0;
}

// Domain 0 offers no ports to guests: it is us, and connects to theirs. So only a guest's own ports are left.
i64 Events::bind_interdomain(u16 remote_domain, u32 remote_port, u32& port) {
  remote_domain = name_of(remote_domain);
  if (remote_domain != config_.domid) return remote_domain == 0 ? -kXEINVAL : -kXESRCH;
  VcpuMask told = 0;
  {
    Lock lock{mutex_};
    Channel* const remote = find(remote_port);
    if (remote == nullptr || remote->state != State::kUnbound || remote->remote_domain != config_.domid)
      return -kXEINVAL;
    Channel* const local = allocate(port);
    if (local == nullptr) return -kXENOSPC;
    local->state = remote->state = State::kInterdomain;
    local->remote_domain = config_.domid;
    local->remote_port = remote_port;
    remote->remote_port = port;
    told = set_pending(port, *local);  // the other side may have sent before
  }
  notify(told);
  return 0;
}

i64 Events::bind_virq(u32 virq, u32 vcpu, u32& port) {
  if (virq >= kVirqs || (!per_vcpu(virq) && vcpu != 0)) return -kXEINVAL;
  if (!valid_vcpu(vcpu)) return -kXENOENT;
  Lock lock{mutex_};
  if (virq_ports_[vcpu][virq] != 0) return -kXEEXIST;
  Channel* const channel = allocate(port);
  if (channel == nullptr) return -kXENOSPC;
  channel->state = State::kVirq;
  channel->vcpu = static_cast<u8>(vcpu);
  channel->virq = virq;
  virq_ports_[vcpu][virq] = port;
  if (config_.engine_events != nullptr && virq == VIRQ_TIMER) config_.engine_events->set_timer(vcpu, port);
  return 0;
}

i64 Events::bind_ipi(u32 vcpu, u32& port) {
  if (!valid_vcpu(vcpu)) return -kXENOENT;
  Lock lock{mutex_};
  Channel* const channel = allocate(port);
  if (channel == nullptr) return -kXENOSPC;
  channel->state = State::kIpi;
  channel->vcpu = static_cast<u8>(vcpu);
  if (config_.engine_events != nullptr) config_.engine_events->set_ipi(port, vcpu);
  return 0;
}

// The other end, if there is one, waits for a new connection.
void Events::release(u32 port, Channel& channel) {
  if (config_.engine_events != nullptr) {
    if (channel.state == State::kIpi) config_.engine_events->set_ipi(port, std::nullopt);
    if (channel.state == State::kVirq && channel.virq == VIRQ_TIMER) config_.engine_events->set_timer(channel.vcpu, 0);
  }
  if (channel.state == State::kVirq)
    for (auto& ports : virq_ports_)
      if (ports[channel.virq] == port) ports[channel.virq] = 0;
  if (channel.host != nullptr) {
    channel.host->guest_port = 0;
    channel.host.reset();
  } else if (channel.state == State::kInterdomain && channel.remote_port != port) {
    channels_[channel.remote_port].state = State::kUnbound;
  }
  channel.state = State::kFree;
  clear_pending(port);
}

i64 Events::close(u32 port) {
  std::shared_ptr<HostEnd> host;  // goes, if we are the last to hold it, without our lock
  Lock lock{mutex_};
  Channel* const channel = find(port);
  if (channel == nullptr) return -kXEINVAL;
  host = channel->host;
  release(port, *channel);
  return 0;
}

i64 Events::send(u32 port) {
  std::shared_ptr<HostEnd> host;
  VcpuMask told = 0;
  {
    Lock lock{mutex_};
    Channel* const channel = find(port);
    if (channel == nullptr) return -kXEINVAL;
    if (channel->state == State::kUnbound) return 0;  // nobody there yet
    if (channel->state == State::kVirq) return -kXEINVAL;
    host = channel->host;
    if (channel->state == State::kIpi)
      told = set_pending(port, *channel);
    else if (host == nullptr)
      told = set_pending(channel->remote_port, channels_[channel->remote_port]);
  }
  if (host != nullptr) host->fire();
  notify(told);
  return 0;
}

i64 Events::status(evtchn_status_t& status) {
  if (name_of(status.dom) != config_.domid) return status.dom == 0 ? -kXEPERM : -kXESRCH;
  Lock lock{mutex_};
  if (status.port >= channels_.size()) return -kXEINVAL;
  const Channel& channel = channels_[status.port];
  status.vcpu = channel.state == State::kFree ? 0 : channel.vcpu;
  switch (channel.state) {
    case State::kFree:
      status.status = EVTCHNSTAT_closed;
      break;
    case State::kUnbound:
      status.status = EVTCHNSTAT_unbound;
      status.u.unbound.dom = channel.remote_domain;
      break;
    case State::kInterdomain:
      status.status = EVTCHNSTAT_interdomain;
      status.u.interdomain.dom = channel.remote_domain;
      status.u.interdomain.port = channel.remote_port;
      break;
    case State::kVirq:
      status.status = EVTCHNSTAT_virq;
      status.u.virq = channel.virq;
      break;
    case State::kIpi:
      status.status = EVTCHNSTAT_ipi;
      break;
  }
  return 0;
}

i64 Events::bind_vcpu(u32 port, u32 vcpu) {
  if (!valid_vcpu(vcpu)) return -kXENOENT;
  Lock lock{mutex_};
  Channel* const channel = find(port);
  if (channel == nullptr || channel->state == State::kIpi) return -kXEINVAL;
  if (channel->state == State::kVirq && per_vcpu(channel->virq)) return -kXEINVAL;
  channel->vcpu = static_cast<u8>(vcpu);
  return 0;
}

i64 Events::reset() {
  std::vector<std::shared_ptr<HostEnd>> hosts;  // go without our lock
  Lock lock{mutex_};
  for (u32 port = 1; port < channels_.size(); ++port) {
    if (channels_[port].state == State::kFree) continue;
    if (channels_[port].host != nullptr) hosts.push_back(channels_[port].host);
    release(port, channels_[port]);
  }
  for (Channel& channel : channels_) channel = {};
  fifo_.reset();
  for (const u64 frame : std::exchange(fifo_frames_, {})) frames_.let_go(frame, Hold::kWrite);
  return 0;
}

std::optional<bool> Events::pending(u32 port) {
  Lock lock{mutex_};
  if (find(port) == nullptr) return std::nullopt;
  if (fifo_) return fifo_->pending(port);
  return bit(std::atomic_ref{areas_.shared().evtchn_pending[port / 64]}.load(), port % 64);
}

void Events::raise_virq(unsigned vcpu, u32 virq) {
  if (virq >= kVirqs || !valid_vcpu(vcpu)) return;
  VcpuMask told = 0;
  {
    Lock lock{mutex_};
    const u32 port = virq_ports_[per_vcpu(virq) ? vcpu : 0][virq];
    if (port != 0) told = set_pending(port, channels_[port]);
  }
  notify(told);
}

}  // namespace bulkhead::abi::xen
