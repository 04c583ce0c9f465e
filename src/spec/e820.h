// Types of memory in the map that firmware hands to a kernel [acpi-6.5 §15.4 "Address Range Types"]; PVH, Linux and
// Multiboot all use these numbers.
#pragma once
#include "base/ints.h"

namespace bulkhead::spec::e820 {

inline constexpr u32 kRam = 1, kReserved = 2, kAcpi = 3, kAcpiNvs = 4;

}  // namespace bulkhead::spec::e820
