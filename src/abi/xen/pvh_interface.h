// How a PVH guest finds Xen: CPUID leaves from 0x40000000, and the hypercall page that an MSR write asks for
// [xen/arch-x86/cpuid.h].
#pragma once
#include <array>
#include <cstddef>
#include <span>

#include "base/ints.h"
#include "engine/cpu_model.h"

namespace bulkhead::abi::xen {

inline constexpr u32 kXenLeaves = 0x40000000;         // the first CPUID leaf
inline constexpr u32 kHypercallPageMsr = 0x40000000;  // takes the guest-physical address of the page to fill

// The model with Xen's leaves, and with CPUID.1:ECX[31] set: a guest of some hypervisor.
engine::CpuModel with_xen_leaves(engine::CpuModel model, u16 domid);

// Entries of 32 bytes, one for each hypercall number: MOV EAX, number; the engine's `call` (at most 8 bytes, as
// Partition::hypercall_code() gives it); RET.
std::array<std::byte, kPageSize> hypercall_page(std::span<const u8> call);

}  // namespace bulkhead::abi::xen
