// The guest's event channels: who is connected to what, and how an event becomes pending, in both ABIs
// [xen/event_channel.h]. Every method from any thread. A negative number is a Xen error.
#pragma once
#include <xen/event_channel.h>

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "abi/xen/counters.h"
#include "abi/xen/domain.h"
#include "abi/xen/fifo.h"
#include "abi/xen/vcpu_areas.h"
#include "abi/xen/waits.h"
#include "base/sync.h"

namespace bulkhead::abi::xen {

// Ports 1..kMaxPort, as many as Xen's toolstack allows a guest.
inline constexpr u32 kMaxPort = 1023;
inline constexpr u32 kVirqs = 24;

class Events final : public EventHost {
 public:
  Events(const DomainConfig& config, VcpuAreas& areas, Waits& waits, Frames& frames, Vcpus& vcpus,
         DomainCounters& counters);
  ~Events() override;

  // ---- hypercalls
  i64 alloc_unbound(u16 remote_domain, u32& port) BH_EXCLUDES(mutex_);
  i64 bind_interdomain(u16 remote_domain, u32 remote_port, u32& port) BH_EXCLUDES(mutex_);
  i64 bind_virq(u32 virq, u32 vcpu, u32& port) BH_EXCLUDES(mutex_);
  i64 bind_ipi(u32 vcpu, u32& port) BH_EXCLUDES(mutex_);
  i64 close(u32 port) BH_EXCLUDES(mutex_);
  i64 send(u32 port) BH_EXCLUDES(mutex_);
  i64 status(evtchn_status_t& status) BH_EXCLUDES(mutex_);
  i64 bind_vcpu(u32 port, u32 vcpu) BH_EXCLUDES(mutex_);
  i64 unmask(u32 port) BH_EXCLUDES(mutex_);
  i64 reset() BH_EXCLUDES(mutex_);
  i64 init_control(evtchn_init_control_t& control) BH_EXCLUDES(mutex_);
  i64 expand_array(u64 frame) BH_EXCLUDES(mutex_);
  i64 set_priority(u32 port, u32 priority) BH_EXCLUDES(mutex_);
  // For sched_op's poll: whether the port exists, and whether it is pending.
  std::optional<bool> pending(u32 port) BH_EXCLUDES(mutex_);

  // ---- from within
  void raise_virq(unsigned vcpu, u32 virq) BH_EXCLUDES(mutex_);
  // Moves vcpu_info with what it holds; then everything looks pending, so that nothing is lost.
  void relocate(unsigned vcpu, vcpu_info_t* to) BH_EXCLUDES(mutex_);

  // ---- EventHost
  std::unique_ptr<Binding> bind(u32 guest_port, std::function<void()> on_event) override BH_EXCLUDES(mutex_);
  Result<u32> alloc_unbound_for_guest() override BH_EXCLUDES(mutex_);

 private:
  class HostEnd;
  class HostBinding;
  enum class State : u8 { kFree, kUnbound, kInterdomain, kVirq, kIpi };
  struct Channel {
    State state = State::kFree;
    u8 vcpu = 0;
    u8 priority = EVTCHN_FIFO_PRIORITY_DEFAULT;
    FifoPlace last;
    bool owed = false;  // FIFO: pending, but the guest has given no word for it yet
    u16 remote_domain = 0;
    u32 remote_port = 0;  // kInterdomain: of the guest itself (host is null), or the host's number
    u32 virq = 0;
    std::shared_ptr<HostEnd> host;
  };
  using VcpuMask = u32;  // who is to be told, once the lock is free

  Channel* find(u32 port) BH_REQUIRES(mutex_);  // in use; else nullptr, counted
  Channel* allocate(u32& port) BH_REQUIRES(mutex_);
  void clear_pending(u32 port) BH_REQUIRES(mutex_);
  void release(u32 port, Channel& channel) BH_REQUIRES(mutex_);
  VcpuMask set_pending(u32 port, Channel& channel) BH_REQUIRES(mutex_);
  VcpuMask set_pending_2l(u32 port, const Channel& channel, bool& fresh) BH_REQUIRES(mutex_);
  VcpuMask set_pending_fifo(u32 port, Channel& channel, bool& fresh) BH_REQUIRES(mutex_);
  VcpuMask mark(unsigned vcpu) BH_REQUIRES(mutex_);
  VcpuMask wake_pollers(u32 port) BH_REQUIRES(mutex_);
  void start_fifo() BH_REQUIRES(mutex_);
  std::byte* hold_for_fifo(u64 frame) BH_REQUIRES(mutex_);
  void notify(VcpuMask vcpus) BH_EXCLUDES(mutex_);
  void notify_from_host(HostEnd& end) BH_EXCLUDES(mutex_);
  void unbind_host(HostEnd& end) BH_EXCLUDES(mutex_);
  bool valid_vcpu(u32 vcpu) const { return vcpu < config_.vcpus; }
  u16 name_of(u16 domain) const { return domain == DOMID_SELF ? config_.domid : domain; }

  const DomainConfig& config_;
  VcpuAreas& areas_;
  Waits& waits_;
  Frames& frames_;
  Vcpus& vcpus_;
  DomainCounters& counters_;

  Mutex mutex_;
  std::vector<Channel> channels_ BH_GUARDED_BY(mutex_);
  std::array<std::array<u32, kVirqs>, kMaxVcpus> virq_ports_ BH_GUARDED_BY(mutex_){};
  std::optional<Fifo> fifo_ BH_GUARDED_BY(mutex_);
  std::vector<u64> fifo_frames_ BH_GUARDED_BY(mutex_);  // held for it
  u32 next_host_port_ BH_GUARDED_BY(mutex_) = 1;
};

}  // namespace bulkhead::abi::xen
