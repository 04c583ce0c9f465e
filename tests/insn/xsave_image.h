// Registers to and from a standard-format XSAVE image of this host.
#pragma once
#include "tests/insn/case.h"

namespace bulkhead::insn {

inline constexpr u32 kImageSize = 4096;
inline constexpr u64 kImageComponents = 0xe7;  // masked by what the host has

u64 image_components();
void to_image(const Registers& registers, std::byte* image);    // 64-byte aligned, kImageSize
void from_image(const std::byte* image, Registers& registers);  // honours XSTATE_BV

}  // namespace bulkhead::insn
