// The 64-bit Linux boot protocol [linux-boot "64-bit Boot Protocol"]: zero page with E820 map and setup header,
// identity page tables, entry at startup_64.
#pragma once
#include "abi/boot_info.h"
#include "abi/image/kernel.h"
#include "engine/vcpu_state.h"
#include "memory/guest_memory.h"

namespace bulkhead::abi {

// As prepare_pvh().
Result<void> prepare_linux64(const Kernel& kernel, const BootInfo& info, const GuestMemory& memory,
                             engine::VcpuState& state);

}  // namespace bulkhead::abi
