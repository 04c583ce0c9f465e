// event_channel_op: arguments in, Events, results out [xen/event_channel.h].
#include "abi/xen/domain_parts.h"
#include "abi/xen/errors.h"

namespace bulkhead::abi::xen {
namespace {

// Copies the argument in, and out again when all went well. A result that cannot be written leaves the port allocated,
// so it is closed by `undo`.
template <class T, class Do, class Undo>
i64 with(Guest& guest, u64 at, Do act, Undo undo) {
  T arg;
  if (!guest.read(at, arg)) return -kXEFAULT;
  if (const i64 error = act(arg); error != 0) return error;
  if (guest.write(at, arg)) return 0;
  undo(arg);
  return -kXEFAULT;
}
template <class T, class Do>
i64 in_only(Guest& guest, u64 at, Do act) {
  T arg;
  return guest.read(at, arg) ? act(arg) : -kXEFAULT;
}

i64 perform(DomainParts& d, Guest& guest, u64 command, u64 at) {
  Events& events = d.events;
  const auto close_port = [&](const auto& arg) { events.close(arg.port); };
  const auto nothing = [](const auto&) {};
  switch (command) {
    case EVTCHNOP_alloc_unbound:
      return with<evtchn_alloc_unbound_t>(
          guest, at, [&](auto& a) { return d.is_self(a.dom) ? events.alloc_unbound(a.remote_dom, a.port) : -kXEPERM; },
          close_port);
    case EVTCHNOP_bind_interdomain:
      return with<evtchn_bind_interdomain_t>(
          guest, at, [&](auto& a) { return events.bind_interdomain(a.remote_dom, a.remote_port, a.local_port); },
          [&](auto& a) { events.close(a.local_port); });
    case EVTCHNOP_bind_virq:
      return with<evtchn_bind_virq_t>(
          guest, at, [&](auto& a) { return events.bind_virq(a.virq, a.vcpu, a.port); }, close_port);
    case EVTCHNOP_bind_ipi:
      return with<evtchn_bind_ipi_t>(guest, at, [&](auto& a) { return events.bind_ipi(a.vcpu, a.port); }, close_port);
    case EVTCHNOP_bind_pirq:
      return -kXEPERM;  // no physical interrupts in a guest without devices of the host's
    case EVTCHNOP_close:
      return in_only<evtchn_close_t>(guest, at, [&](auto& a) { return events.close(a.port); });
    case EVTCHNOP_send:
      return in_only<evtchn_send_t>(guest, at, [&](auto& a) { return events.send(a.port); });
    case EVTCHNOP_status:
      return with<evtchn_status_t>(guest, at, [&](auto& a) { return events.status(a); }, nothing);
    case EVTCHNOP_bind_vcpu:
      return in_only<evtchn_bind_vcpu_t>(guest, at, [&](auto& a) { return events.bind_vcpu(a.port, a.vcpu); });
    case EVTCHNOP_unmask:
      return in_only<evtchn_unmask_t>(guest, at, [&](auto& a) { return events.unmask(a.port); });
    case EVTCHNOP_reset:
      return in_only<evtchn_reset_t>(guest, at, [&](auto& a) { return d.is_self(a.dom) ? events.reset() : -kXEPERM; });
    case EVTCHNOP_init_control:
      return with<evtchn_init_control_t>(guest, at, [&](auto& a) { return events.init_control(a); }, nothing);
    case EVTCHNOP_expand_array:
      return in_only<evtchn_expand_array_t>(guest, at, [&](auto& a) { return events.expand_array(a.array_gfn); });
    case EVTCHNOP_set_priority:
      return in_only<evtchn_set_priority_t>(guest, at,
                                            [&](auto& a) { return events.set_priority(a.port, a.priority); });
    default:
      return d.unknown_operation().value;
  }
}
}  // namespace

Answer event_channel_op(DomainParts& domain, Guest& guest, const HypercallArgs& args) {
  return {perform(domain, guest, args[0], args[1])};
}

}  // namespace bulkhead::abi::xen
