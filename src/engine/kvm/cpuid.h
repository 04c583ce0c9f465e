// CPU models on KVM: cut down to what it can give a guest, with what belongs to each vCPU put in.
#pragma once
#include <vector>

#include "engine/engine.h"
#include "engine/kvm/host.h"
#include "engine/kvm/kvm_api.h"

namespace bulkhead::engine::kvm {

// The model without the features that KVM cannot give. Errors: a portable model needs one of them; names it.
Result<CpuModel> cut_to_kvm(CpuModel model, const KvmHost& host, ParavirtAbi abi);

// Whether a guest on a processor of this vendor (CPUID 0's EBX) makes hypercalls by VMCALL; otherwise by VMMCALL. KVM
// sees the host's own instruction only: for the other one it would have to change the guest's code, which guests
// forbid.
bool calls_by_vmcall(u32 vendor_ebx);
bool host_calls_by_vmcall();

// KVM_SET_CPUID2's table for vCPU `index`. KVM itself puts in OSXSAVE and the size of the enabled XSAVE area.
std::vector<kvm_cpuid_entry2> cpuid_entries(const CpuModel& model, unsigned index);

}  // namespace bulkhead::engine::kvm
