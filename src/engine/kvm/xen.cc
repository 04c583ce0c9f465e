#include "engine/kvm/xen.h"

#include <memory>

#include "engine/kvm/ioctl.h"
#include "engine/kvm/vcpu.h"

namespace bulkhead::engine::kvm {
namespace {

constexpr u16 kSharedInfoByAddress = 0x6, kVcpuInfoByAddress = 0x9;  // as kXenByAddress
constexpr u16 kRunstateFlag = 0x5;                                   // since Linux 6.3
constexpr u32 kTimeBytes = 32, kRunstateBytes = 48;                  // [xen/xen.h, xen/vcpu.h]
constexpr u32 kIpiChannel = 5;                                       // EVTCHNSTAT_ipi [xen/event_channel.h]

Result<void> set(int vm, kvm_xen_hvm_attr& attribute, const char* what) {
  if (kvm_ioctl(vm, KVM_XEN_HVM_SET_ATTR, &attribute) == 0) return {};
  return fail_errno("KVM refuses {} of Xen's event channels; use the engine option kvm.events=user", what);
}

}  // namespace

Result<void> set_xen_attribute(int vcpu, const XenVcpuAttribute& asked) {
  kvm_xen_vcpu_attr attribute{};
  attribute.type = asked.type;
  if (asked.type == KVM_XEN_VCPU_ATTR_TYPE_TIMER) {
    attribute.u.timer.port = static_cast<u32>(asked.value);
    attribute.u.timer.priority = KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL;
  } else if (asked.type == KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR) {
    attribute.u.vector = static_cast<u8>(asked.value);
  } else {
    attribute.u.gpa = asked.value;
  }
  if (kvm_ioctl(vcpu, KVM_XEN_VCPU_SET_ATTR, &attribute) == 0) return {};
  return fail_errno("KVM refuses attribute {} of a vCPU's event channels", asked.type);
}

Result<void> KvmXenEvents::start(std::byte* shared_info, u64 system_time) {
  kvm_clock_data clock{};
  clock.clock = system_time;
  if (kvm_ioctl(vm_, KVM_SET_CLOCK, &clock) != 0) return fail_errno("KVM refuses a clock");
  kvm_xen_hvm_attr mode{};
  mode.type = KVM_XEN_ATTR_TYPE_LONG_MODE;
  mode.u.long_mode = 1;
  BH_TRY(set(vm_, mode, "the layout"));
  // Said, for KVM takes every vCPU for number 0 otherwise, and refuses timer calls of the others.
  for (u64 i = 0; i < vcpus_.size(); ++i)
    BH_TRY(set_xen_attribute(vcpus_[i]->fd(), {KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID, i}));
  kvm_xen_hvm_attr shared{};
  shared.type = kSharedInfoByAddress;
  shared.u.shared_info.gfn = reinterpret_cast<u64>(shared_info);
  return set(vm_, shared, "the shared page");
}

void KvmXenEvents::set_vcpu_info(unsigned vcpu, std::byte* info) {
  vcpus_[vcpu]->want({kVcpuInfoByAddress, reinterpret_cast<u64>(info)});
}

void KvmXenEvents::set_timer(unsigned vcpu, u32 port) { vcpus_[vcpu]->want({KVM_XEN_VCPU_ATTR_TYPE_TIMER, port}); }

void KvmXenEvents::set_lapic_upcall(unsigned vcpu, u8 vector) {
  vcpus_[vcpu]->want({KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR, vector});
}

// What it does not take comes out of the guest as a hypercall, and is answered all the same.
void KvmXenEvents::set_ipi(u32 port, std::optional<unsigned> vcpu) {
  kvm_xen_hvm_attr channel{};
  channel.type = KVM_XEN_ATTR_TYPE_EVTCHN;
  channel.u.evtchn.send_port = port;
  channel.u.evtchn.type = kIpiChannel;
  channel.u.evtchn.flags = vcpu ? 0 : KVM_XEN_EVTCHN_DEASSIGN;
  channel.u.evtchn.deliver.port.port = port;
  channel.u.evtchn.deliver.port.vcpu = vcpu.value_or(0);
  channel.u.evtchn.deliver.port.priority = KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL;
  (void)kvm_ioctl(vm_, KVM_XEN_HVM_SET_ATTR, &channel);
}

void KvmXenEvents::set_upcall(u8 vector) {
  kvm_xen_hvm_attr upcall{};
  upcall.type = KVM_XEN_ATTR_TYPE_UPCALL_VECTOR;
  upcall.u.vector = vector;
  (void)kvm_ioctl(vm_, KVM_XEN_HVM_SET_ATTR, &upcall);
}

// Both are told by guest-physical addresses: an area across two pages that do not lie side by side cannot be.
bool KvmXenEvents::set_time_area(unsigned vcpu, Gva at) {
  const auto gpa = vcpus_[vcpu]->translate(at, kTimeBytes);
  return gpa && set_xen_attribute(vcpus_[vcpu]->fd(), {KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO, gpa->value});
}

bool KvmXenEvents::set_runstate_area(unsigned vcpu, Gva at) {
  const auto gpa = vcpus_[vcpu]->translate(at, kRunstateBytes);
  constexpr u64 kRunning = 0;
  return gpa && set_xen_attribute(vcpus_[vcpu]->fd(), {KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR, gpa->value}) &&
         set_xen_attribute(vcpus_[vcpu]->fd(), {KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT, kRunning});
}

void KvmXenEvents::set_runstate_flag(bool on) {
  kvm_xen_hvm_attr flag{};
  flag.type = kRunstateFlag;
  flag.u.long_mode = on;  // of the same size, at the same place
  (void)kvm_ioctl(vm_, KVM_XEN_HVM_SET_ATTR, &flag);
}

void KvmXenEvents::look(unsigned vcpu) { vcpus_[vcpu]->poke(); }

}  // namespace bulkhead::engine::kvm
