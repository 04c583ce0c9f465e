// Kernels that bring their own hypercall instructions. Linux since XSA-466 (December 2024) does not use the hypercall
// page in PVH guests but has a VMMCALL and a VMCALL, each a function of its own, and picks one by the CPU's vendor. On
// an engine that sees neither, its own instruction takes their place in the loaded image.
#pragma once
#include <cstddef>
#include <span>

#include "base/ints.h"

namespace bulkhead::abi::xen {

// Whether an engine's `call` is VMCALL or VMMCALL, so that there is nothing to do.
bool is_common_hypercall(std::span<const u8> call);

// Puts `call` (at most 3 bytes) in place of each pair of such functions in `image`: VMMCALL and VMCALL close to each
// other, each followed by RET or by a jump to the same place. Nothing else is touched. Returns how many instructions it
// replaced.
unsigned replace_hypercalls(std::span<std::byte> image, std::span<const u8> call);

}  // namespace bulkhead::abi::xen
