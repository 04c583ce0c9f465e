// How an event becomes pending, masked or queued, in the 2-level and the FIFO ABI; and domain 0's end.
#include <cstring>

#include "abi/xen/errors.h"
#include "abi/xen/event_host_end.h"
#include "base/bits.h"

namespace bulkhead::abi::xen {

Events::VcpuMask Events::mark(unsigned vcpu) { return areas_.raise(vcpu) ? VcpuMask{1} << vcpu : 0; }

Events::VcpuMask Events::wake_pollers(u32 port) {
  VcpuMask told = 0;
  for (unsigned i = 0; i < config_.vcpus; ++i)
    if (waits_.wake_poller(i, port)) told |= VcpuMask{1} << i;
  return told;
}

Events::VcpuMask Events::set_pending(u32 port, Channel& channel) {
  bool fresh = false;
  VcpuMask told = fifo_ ? set_pending_fifo(port, channel, fresh) : set_pending_2l(port, channel, fresh);
  counters_[fresh ? kEventsSent : kEventsMerged].add();
  if (fresh) told |= wake_pollers(port);
  return told;
}

Events::VcpuMask Events::set_pending_2l(u32 port, const Channel& channel, bool& fresh) {
  const u32 word = port / 64;
  const u64 mask = u64{1} << port % 64;
  fresh = (std::atomic_ref{areas_.shared().evtchn_pending[word]}.fetch_or(mask) & mask) == 0;
  if (!fresh || (std::atomic_ref{areas_.shared().evtchn_mask[word]}.load() & mask) != 0) return 0;
  const u64 selector = u64{1} << word;
  if (std::atomic_ref{areas_.info(channel.vcpu).evtchn_pending_sel}.fetch_or(selector) & selector) return 0;
  return mark(channel.vcpu);
}

Events::VcpuMask Events::set_pending_fifo(u32 port, Channel& channel, bool& fresh) {
  const Fifo::Raised raised = fifo_->raise(port, channel.vcpu, channel.priority, channel.last);
  if (raised.outcome == Fifo::Outcome::kNoWord) {
    fresh = !channel.owed;
    channel.owed = true;
    return 0;
  }
  fresh = raised.outcome == Fifo::Outcome::kPending;
  return raised.ready ? mark(channel.vcpu) : 0;
}

void Events::clear_pending(u32 port) {
  channels_[port].owed = false;
  if (fifo_)
    fifo_->clear_pending(port);
  else
    std::atomic_ref{areas_.shared().evtchn_pending[port / 64]}.fetch_and(~(u64{1} << port % 64));
}

i64 Events::unmask(u32 port) {
  VcpuMask told = 0;
  {
    Lock lock{mutex_};
    Channel* const channel = find(port);
    if (channel == nullptr) return -kXEINVAL;
    const u32 word = port / 64;
    const u64 mask = u64{1} << port % 64, selector = u64{1} << word;
    if (fifo_) {
      if (fifo_->unmask(port) && fifo_->raise(port, channel->vcpu, channel->priority, channel->last).ready)
        told = mark(channel->vcpu);
    } else if ((std::atomic_ref{areas_.shared().evtchn_mask[word]}.fetch_and(~mask) & mask) != 0 &&
               (std::atomic_ref{areas_.shared().evtchn_pending[word]}.load() & mask) != 0 &&
               (std::atomic_ref{areas_.info(channel->vcpu).evtchn_pending_sel}.fetch_or(selector) & selector) == 0) {
      told = mark(channel->vcpu);
    }
  }
  notify(told);
  return 0;
}

// Events that are pending in the old ABI are owed until the guest gives pages for their words.
void Events::start_fifo() {
  for (u32 port = 1; port < channels_.size(); ++port) {
    Channel& channel = channels_[port];
    channel.last = {};
    channel.owed = channel.state != State::kFree &&
                   bit(std::atomic_ref{areas_.shared().evtchn_pending[port / 64]}.load(), port % 64);
  }
  fifo_.emplace(counters_);
}

// Until reset(): we write to it whenever an event comes.
std::byte* Events::hold_for_fifo(u64 frame) {
  std::byte* const page = frames_.hold(frame, Hold::kWrite);
  if (page != nullptr) fifo_frames_.push_back(frame);
  return page;
}

i64 Events::init_control(evtchn_init_control_t& control) {
  if (!config_.fifo_events) return -kXENOSYS;
  if (!valid_vcpu(control.vcpu)) return -kXENOENT;
  if (control.offset > kPageSize - sizeof(evtchn_fifo_control_block_t) || !is_aligned(control.offset, 8))
    return -kXEINVAL;
  Lock lock{mutex_};
  if (fifo_ && fifo_->has_control_block(control.vcpu)) return -kXEINVAL;
  std::byte* const page = hold_for_fifo(control.control_gfn);
  if (page == nullptr) return -kXEINVAL;
  if (!fifo_) start_fifo();
  fifo_->set_control_block(control.vcpu, reinterpret_cast<evtchn_fifo_control_block_t*>(page + control.offset));
  control.link_bits = EVTCHN_FIFO_LINK_BITS;
  return 0;
}

i64 Events::expand_array(u64 frame) {
  VcpuMask told = 0;
  {
    Lock lock{mutex_};
    if (!fifo_) return -kXEOPNOTSUPP;
    if (fifo_->full()) return -kXENOSPC;
    std::byte* const page = hold_for_fifo(frame);
    if (page == nullptr) return -kXEINVAL;
    const u32 first = fifo_->ports();
    fifo_->add_page(reinterpret_cast<event_word_t*>(page));
    for (u32 port = first; port < fifo_->ports() && port < channels_.size(); ++port)
      if (std::exchange(channels_[port].owed, false)) told |= set_pending(port, channels_[port]);
  }
  notify(told);
  return 0;
}

i64 Events::set_priority(u32 port, u32 priority) {
  if (priority > EVTCHN_FIFO_PRIORITY_MIN) return -kXEINVAL;
  Lock lock{mutex_};
  if (!fifo_) return -kXENOSYS;
  Channel* const channel = find(port);
  if (channel == nullptr) return -kXEINVAL;
  channel->priority = static_cast<u8>(priority);
  return 0;
}

void Events::relocate(unsigned vcpu, vcpu_info_t* to) {
  VcpuMask told = 0;
  {
    Lock lock{mutex_};
    std::memcpy(to, &areas_.info(vcpu), sizeof *to);
    areas_.relocate(vcpu, to);
    if (config_.engine_events != nullptr) config_.engine_events->set_vcpu_info(vcpu, reinterpret_cast<std::byte*>(to));
    if (!fifo_) std::atomic_ref{to->evtchn_pending_sel}.store(~xen_ulong_t{0});
    std::atomic_ref{to->evtchn_upcall_pending}.store(1);
    told = VcpuMask{1} << vcpu;
  }
  notify(told);
}

std::unique_ptr<EventHost::Binding> Events::bind(u32 guest_port, std::function<void()> on_event) {
  Lock lock{mutex_};
  Channel* const channel = find(guest_port);
  if (channel == nullptr || channel->state != State::kUnbound || channel->remote_domain != 0) return nullptr;
  channel->state = State::kInterdomain;
  channel->remote_port = next_host_port_++;
  channel->host = std::make_shared<HostEnd>(std::move(on_event), guest_port);
  return std::make_unique<HostBinding>(*this, channel->host);
}

Result<u32> Events::alloc_unbound_for_guest() {
  u32 port = 0;
  if (alloc_unbound(0, port) != 0) return fail("the guest has no event channel left; it has {}", kMaxPort);
  return port;
}

void Events::notify_from_host(HostEnd& end) {
  VcpuMask told = 0;
  {
    Lock lock{mutex_};
    if (end.guest_port != 0) told = set_pending(end.guest_port, channels_[end.guest_port]);
  }
  notify(told);
}

void Events::unbind_host(HostEnd& end) {
  {
    Lock lock{mutex_};
    if (const u32 port = std::exchange(end.guest_port, 0); port != 0) {
      channels_[port].state = State::kUnbound;
      channels_[port].host.reset();
    }
  }
  end.retire();
}

}  // namespace bulkhead::abi::xen
