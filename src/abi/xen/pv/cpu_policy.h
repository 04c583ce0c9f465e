// The CPUID of PV guests: features that need ring 0, or a page table that is the guest's own, are not theirs.
#pragma once
#include "engine/cpu_model.h"

namespace bulkhead::abi::xen::pv {

engine::CpuModel pv_cpu_model(engine::CpuModel model);

}  // namespace bulkhead::abi::xen::pv
