// The PVH entry [xen: docs/misc/pvh.pandoc]: start info with memory map, initrd, command line and RSDP in low memory,
// 32-bit protected mode.
#pragma once
#include "abi/boot_info.h"
#include "abi/image/kernel.h"
#include "engine/vcpu_state.h"
#include "memory/guest_memory.h"

namespace bulkhead::abi {

// Writes what the kernel is handed and makes `state` that of the first vCPU at its entry. Errors: the command line or
// the memory map is too long.
Result<void> prepare_pvh(const Kernel& kernel, const BootInfo& info, const GuestMemory& memory,
                         engine::VcpuState& state);

}  // namespace bulkhead::abi
