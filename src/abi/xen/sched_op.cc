// sched_op: yielding, blocking, polling, shutting down, the watchdog [xen/sched.h].
#include <xen/sched.h>

#include <array>

#include "abi/xen/domain_parts.h"
#include "abi/xen/errors.h"

namespace bulkhead::abi::xen {
namespace {
constexpr u32 kMostPolledPorts = 128;

Answer block(DomainParts& d, unsigned vcpu) {
  d.areas.set_masked(vcpu, false);
  d.waits.begin_block(vcpu);
  if (d.areas.upcall(vcpu)) {
    d.waits.end(vcpu);
    return {};
  }
  return {0, After::kBlock};
}

// Whether an upcall or one of the ports is pending. Negative: no such port.
i64 poll_now(DomainParts& d, unsigned vcpu, std::span<const evtchn_port_t> ports) {
  if (d.areas.upcall(vcpu)) return 1;
  for (const evtchn_port_t port : ports) {
    const auto pending = d.events.pending(port);
    if (!pending) return -kXEINVAL;
    if (*pending) return 1;
  }
  return 0;
}

Answer poll(DomainParts& d, Guest& guest, u64 at) {
  sched_poll_t arg;
  std::array<evtchn_port_t, kMostPolledPorts> list;
  if (!guest.read(at, arg)) return {-kXEFAULT};
  if (arg.nr_ports > kMostPolledPorts) return {-kXEINVAL};
  const auto ports = std::span{list}.first(arg.nr_ports);
  if (!guest.read_bytes(reinterpret_cast<u64>(arg.ports.p), std::as_writable_bytes(ports))) return {-kXEFAULT};
  const unsigned vcpu = guest.vcpu();
  d.waits.begin_poll(vcpu, ports.size() == 1 ? i64{ports[0]} : Waits::kAnyPort);
  const i64 now = poll_now(d, vcpu, ports);
  if (now != 0 || (arg.timeout != 0 && arg.timeout <= d.clock.now())) {
    d.waits.end(vcpu);
    return {now < 0 ? now : 0};
  }
  if (arg.timeout != 0)
    d.timers.set_poll(vcpu, arg.timeout);
  else
    d.timers.stop_poll(vcpu);
  return {0, After::kBlock};
}

Answer shutdown(DomainParts& d, Guest& guest, u64 at) {
  sched_shutdown_t arg;
  if (!guest.read(at, arg)) return {-kXEFAULT};
  if (arg.reason > SHUTDOWN_watchdog) return {-kXEINVAL};  // soft reset is for whoever runs kexec in dom0's eyes
  // Nothing saves zones yet, so a suspend is a suspend that was cancelled: the call returns 1 and the guest goes on
  // where it was, as its note SUSPEND_CANCEL says that it can [xen/elfnote.h].
  if (arg.reason == SHUTDOWN_suspend) {
    d.counters[kCancelledSuspends].add();
    return {1};
  }
  d.vcpus.shutdown(static_cast<ShutdownReason>(arg.reason));
  return {0, After::kEnd};
}

i64 set_watchdog(DomainParts& d, DomainParts::Watchdog& dog, u32 seconds) {
  dog.deadline = seconds == 0 ? 0 : d.clock.now() + u64{seconds} * 1'000'000'000;
  if (seconds == 0)
    dog.timer->disarm();
  else
    dog.timer->arm(d.clock.host_time(dog.deadline));
  return 0;
}

// id 0 makes one and answers with its id; another id sets it anew, or with no timeout ends it.
i64 watchdog(DomainParts& d, Guest& guest, u64 at) {
  sched_watchdog_t arg;
  if (!guest.read(at, arg)) return -kXEFAULT;
  if (arg.id > d.watchdogs.size()) return -kXEINVAL;
  Lock lock{d.watchdog_mutex};
  if (arg.id != 0) {
    DomainParts::Watchdog& dog = d.watchdogs[arg.id - 1];
    return dog.deadline != 0 ? set_watchdog(d, dog, arg.timeout) : -kXEINVAL;
  }
  if (arg.timeout == 0) return -kXEINVAL;
  for (std::size_t i = 0; i < d.watchdogs.size(); ++i) {
    if (d.watchdogs[i].deadline != 0) continue;
    set_watchdog(d, d.watchdogs[i], arg.timeout);
    return static_cast<i64>(i) + 1;
  }
  return -kXENOSPC;
}

void watchdog_fired(DomainParts& d, std::size_t index) {
  {
    Lock lock{d.watchdog_mutex};
    DomainParts::Watchdog& dog = d.watchdogs[index];
    if (dog.deadline == 0) return;
    if (d.clock.now() < dog.deadline) return dog.timer->arm(d.clock.host_time(dog.deadline));
    dog.deadline = 0;
  }
  d.vcpus.shutdown(ShutdownReason::kWatchdog);
}
}  // namespace

void start_watchdogs(DomainParts& domain, TimerService& timers) {
  Lock lock{domain.watchdog_mutex};
  for (std::size_t i = 0; i < domain.watchdogs.size(); ++i)
    domain.watchdogs[i].timer = timers.create([&domain, i] { watchdog_fired(domain, i); });
}

Answer sched_op(DomainParts& domain, Guest& guest, const HypercallArgs& args) {
  switch (args[0]) {
    case SCHEDOP_yield:
      return {0, After::kYield};
    case SCHEDOP_block:
      return block(domain, guest.vcpu());
    case SCHEDOP_poll:
      return poll(domain, guest, args[1]);
    case SCHEDOP_shutdown:
      return shutdown(domain, guest, args[1]);
    case SCHEDOP_shutdown_code: {
      sched_shutdown_t arg;  // recorded by Xen for the toolstack; ours asks only when the zone is over
      return {guest.read(args[1], arg) ? 0 : -kXEFAULT};
    }
    case SCHEDOP_watchdog:
      return {watchdog(domain, guest, args[1])};
    case SCHEDOP_remote_shutdown:
    case SCHEDOP_pin_override:
      return {-kXEPERM};
    default:
      return domain.unknown_operation();
  }
}

}  // namespace bulkhead::abi::xen
