// What a PVH guest finds at EBX on entry [xen: docs/misc/pvh.pandoc, xen/include/public/arch-x86/hvm/start_info.h].
#pragma once
#include "base/ints.h"

namespace bulkhead::spec::pvh {

inline constexpr u32 kMagic = 0x336ec578;
inline constexpr u32 kVersion = 1;

struct StartInfo {
  u32 magic, version, flags, module_count;
  u64 modules, command_line, rsdp, memory_map;
  u32 memory_map_entries, reserved;
};
struct Module {
  u64 address, size, command_line, reserved;
};
struct MapEntry {
  u64 address, size;
  u32 type, reserved;
};
static_assert(sizeof(StartInfo) == 56 && sizeof(Module) == 32 && sizeof(MapEntry) == 24);

}  // namespace bulkhead::spec::pvh
