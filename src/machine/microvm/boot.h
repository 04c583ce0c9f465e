// Fills a fresh guest's memory: kernel, initrd or modules, ACPI tables, boot data; and the first vCPU's registers.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "engine/vcpu_state.h"
#include "machine/acpi/tables.h"
#include "machine/microvm/microvm.h"
#include "memory/guest_memory.h"

namespace bulkhead::machine {

// `state` comes as after reset and leaves as at the kernel's entry. `hypercall` is the engine's instruction for guests
// that are told of Xen. Returns the kernel's description. Errors name the file that is at fault.
Result<std::string> prepare_boot(const MicrovmConfig& config, const std::vector<VirtioMmioWindow>& virtio,
                                 const GuestMemory& memory, std::span<const u8> hypercall, engine::VcpuState& state);

}  // namespace bulkhead::machine
