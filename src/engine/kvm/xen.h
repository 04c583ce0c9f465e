// Xen's event channels within KVM [kvm-api "KVM_XEN_HVM_SET_ATTR", "KVM_XEN_VCPU_SET_ATTR"].
#pragma once
#include <functional>
#include <vector>

#include "base/sync.h"
#include "engine/kvm/kvm_api.h"
#include "engine/xen_events.h"

namespace bulkhead::engine::kvm {

class KvmVcpu;

// What KVM needs for it: everything by our own addresses, which is Linux 6.9 and later. Newer than Debian 12's headers.
inline constexpr u32 kXenByAddress = 1u << 8;  // KVM_XEN_HVM_CONFIG_SHARED_INFO_HVA
inline constexpr u32 kXenNeeds =
    KVM_XEN_HVM_CONFIG_SHARED_INFO | KVM_XEN_HVM_CONFIG_EVTCHN_2LEVEL | KVM_XEN_HVM_CONFIG_EVTCHN_SEND | kXenByAddress;

// An attribute of one vCPU. KVM takes it while the vCPU is outside of KVM_RUN only.
struct XenVcpuAttribute {
  u16 type = 0;
  u64 value = 0;  // an address, a port or a vector
};

class KvmXenEvents final : public XenEvents {
 public:
  // `vcpus` is filled later, and outlives us.
  KvmXenEvents(int vm, const std::vector<std::unique_ptr<KvmVcpu>>& vcpus) : vm_{vm}, vcpus_{vcpus} {}
  Result<void> start(std::byte* shared_info, u64 system_time) override;
  void set_vcpu_info(unsigned vcpu, std::byte* info) override;
  void set_timer(unsigned vcpu, u32 port) override;
  void set_ipi(u32 port, std::optional<unsigned> vcpu) override;
  void set_upcall(u8 vector) override;
  void set_lapic_upcall(unsigned vcpu, u8 vector) override;
  bool set_time_area(unsigned vcpu, Gva at) override;
  bool set_runstate_area(unsigned vcpu, Gva at) override;
  void set_runstate_flag(bool on) override;
  void look(unsigned vcpu) override;

 private:
  const int vm_;
  const std::vector<std::unique_ptr<KvmVcpu>>& vcpus_;
};

// KVM_XEN_VCPU_SET_ATTR. Errors: KVM refuses.
Result<void> set_xen_attribute(int vcpu, const XenVcpuAttribute& attribute);

}  // namespace bulkhead::engine::kvm
