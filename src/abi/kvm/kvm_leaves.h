// How a guest finds KVM: CPUID leaves from 0x40000000 [kvm-cpuid].
#pragma once
#include "engine/cpu_model.h"

namespace bulkhead::abi::kvm {

// The model with KVM's leaves instead of any other hypervisor's, and with CPUID.1:ECX[31] set. The engine cuts the
// features down to what it has.
engine::CpuModel with_kvm_leaves(engine::CpuModel model);

}  // namespace bulkhead::abi::kvm
