// hvm_op: parameters and the event upcall's vector, for guests with a LAPIC [xen/hvm/hvm_op.h, xen/hvm/params.h].
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>

#include "abi/xen/domain_parts.h"
#include "abi/xen/errors.h"

namespace bulkhead::abi::xen {
namespace {
static_assert(kHvmParams == HVM_NR_PARAMS);
constexpr u8 kFirstVector = 0x10;

// What the guest itself may set; the rest is the domain builder's.
bool may_set(u32 index) {
  switch (index) {
    case HVM_PARAM_CALLBACK_IRQ:
    case HVM_PARAM_VM86_TSS:
    case HVM_PARAM_VM86_TSS_SIZED:
    case HVM_PARAM_ACPI_IOPORTS_LOCATION:
    case HVM_PARAM_VM_GENERATION_ID_ADDR:
    case HVM_PARAM_STORE_EVTCHN:
    case HVM_PARAM_CONSOLE_EVTCHN:
    case HVM_PARAM_X87_FIP_WIDTH:
      return true;
    default:
      return false;
  }
}
bool may_get(u32 index) {
  return may_set(index) || index == HVM_PARAM_STORE_PFN || index == HVM_PARAM_CONSOLE_PFN || index == HVM_PARAM_ALTP2M;
}

void callback_changed(DomainParts& d) {
  if (engine::XenEvents* const engine = d.config.engine_events; engine != nullptr) {
    const Upcall upcall = callback(d.hvm_params[HVM_PARAM_CALLBACK_IRQ], 0);
    engine->set_upcall(upcall.how == Upcall::How::kDirect ? upcall.vector : 0);
  }
  if (d.areas.pending(0)) d.vcpus.notify(0);
}

i64 parameter(DomainParts& d, Guest& guest, u64 at, bool set) {
  xen_hvm_param_t arg;
  if (d.is_pv()) return -kXEINVAL;
  if (!guest.read(at, arg)) return -kXEFAULT;
  if (arg.index >= kHvmParams) return -kXEINVAL;
  if (!d.is_self(arg.domid)) return arg.domid == 0 ? -kXEPERM : -kXESRCH;
  if (!(set ? may_set(arg.index) : may_get(arg.index))) return -kXEPERM;
  if (set) {
    d.hvm_params[arg.index] = arg.value;
    if (arg.index == HVM_PARAM_CALLBACK_IRQ) callback_changed(d);
    return 0;
  }
  arg.value = d.hvm_params[arg.index];
  return guest.write(at, arg) ? 0 : -kXEFAULT;
}

i64 set_upcall_vector(DomainParts& d, Guest& guest, u64 at) {
  xen_hvm_evtchn_upcall_vector_t arg;
  if (d.is_pv()) return -kXEINVAL;
  if (!guest.read(at, arg)) return -kXEFAULT;
  if (arg.vector < kFirstVector) return -kXEINVAL;
  if (arg.vcpu >= d.config.vcpus) return -kXENOENT;
  d.vcpu[arg.vcpu].upcall_vector = arg.vector;
  if (d.config.engine_events != nullptr) d.config.engine_events->set_lapic_upcall(arg.vcpu, arg.vector);
  if (d.areas.pending(arg.vcpu)) d.vcpus.notify(arg.vcpu);
  return 0;
}

i64 get_mem_type(DomainParts& d, Guest& guest, u64 at) {
  xen_hvm_get_mem_type_t arg;
  if (d.is_pv()) return -kXEINVAL;
  if (!guest.read(at, arg)) return -kXEFAULT;
  if (!d.is_self(arg.domid)) return arg.domid == 0 ? -kXEPERM : -kXESRCH;
  const bool ram = d.frames.hold(arg.pfn, Hold::kRead) != nullptr;
  if (ram) d.frames.let_go(arg.pfn, Hold::kRead);
  arg.mem_type = ram ? HVMMEM_ram_rw : HVMMEM_mmio_dm;
  return guest.write(at, arg) ? 0 : -kXEFAULT;
}
}  // namespace

Answer hvm_op(DomainParts& domain, Guest& guest, const HypercallArgs& args) {
  const u64 at = args[1];
  switch (args[0]) {
    case HVMOP_set_param:
      return {parameter(domain, guest, at, true)};
    case HVMOP_get_param:
      return {parameter(domain, guest, at, false)};
    case HVMOP_set_evtchn_upcall_vector:
      return {set_upcall_vector(domain, guest, at)};
    case HVMOP_get_time:
      return {guest.write(at, xen_hvm_get_time_t{domain.clock.now()}) ? 0 : -kXEFAULT};
    case HVMOP_get_mem_type:
      return {get_mem_type(domain, guest, at)};
    case HVMOP_pagetable_dying:  // a hint that shadow paging uses; so Xen answers on hosts with nested paging
      return {-kXEINVAL};
    case HVMOP_altp2m:
    case HVMOP_guest_request_vm_event:
      return {-kXEOPNOTSUPP};
    default:
      return domain.unknown_operation();
  }
}

}  // namespace bulkhead::abi::xen
