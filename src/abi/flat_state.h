// The vCPU states in which kernels are entered: flat 32-bit protected mode without paging, and 64-bit mode with an
// identity map. Both leave what they do not name (MSRs, APIC, FPU) as it was after reset.
#pragma once
#include "base/result.h"
#include "engine/vcpu_state.h"
#include "memory/guest_memory.h"

namespace bulkhead::abi {

// 32-bit protected mode, flat segments, paging and interrupts off [pvh "Initial state"], [multiboot-0.6.96 §3.2].
void enter_flat32(engine::VcpuState& state, u32 entry);

// 64-bit mode with the first 4 GiB identity-mapped by page tables at kPageTables and a GDT at kBootGdt, both written
// here [linux-boot "64-bit Boot Protocol"]. Errors: low memory is missing.
Result<void> enter_flat64(engine::VcpuState& state, const GuestMemory& memory, u64 entry);

}  // namespace bulkhead::abi
