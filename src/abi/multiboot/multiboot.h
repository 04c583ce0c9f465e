// Multiboot 1 [multiboot-0.6.96 §3.2, §3.3]: information structure with memory sizes, memory map, command line and
// modules; 32-bit protected mode.
#pragma once
#include "abi/boot_info.h"
#include "abi/image/kernel.h"
#include "engine/vcpu_state.h"
#include "memory/guest_memory.h"

namespace bulkhead::abi {

// As prepare_pvh(). The command line that the kernel sees begins with its own path, as every boot loader does it.
// An initrd is handed over as the first module.
Result<void> prepare_multiboot(const Kernel& kernel, const BootInfo& info, const GuestMemory& memory,
                               engine::VcpuState& state);

}  // namespace bulkhead::abi
