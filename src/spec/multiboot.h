// Multiboot 1 [multiboot-0.6.96 §3.1 "OS image format", §3.2 "Machine state", §3.3 "Boot information format"].
#pragma once
#include "base/ints.h"

namespace bulkhead::spec::multiboot {

inline constexpr u32 kHeaderMagic = 0x1badb002;
inline constexpr u32 kHeaderSearch = 8192;  // the whole header lies within this many bytes, on a multiple of 4
inline constexpr u32 kAlignModules = 1u << 0, kWantMemory = 1u << 1, kHasAddresses = 1u << 16;
inline constexpr u32 kMandatoryMask = 0xffff;  // flags here that a loader does not know forbid it to boot the image

struct Header {
  u32 magic, flags, checksum;
  u32 header_address, load_address, load_end, bss_end, entry;  // with kHasAddresses only
};
static_assert(sizeof(Header) == 32);

inline constexpr u32 kEntryMagic = 0x2badb002;  // EAX at entry

inline constexpr u32 kInfoMemory = 1u << 0, kInfoCommandLine = 1u << 2, kInfoModules = 1u << 3,
                     kInfoMemoryMap = 1u << 6, kInfoLoaderName = 1u << 9;
struct Info {
  u32 flags, mem_lower, mem_upper, boot_device, command_line;  // mem_* in KiB
  u32 module_count, modules;
  u32 symbols[4];
  u32 memory_map_length, memory_map;
  u32 drives_length, drives, config_table, loader_name, apm_table;
  u32 vbe[4];
};
struct Module {
  u32 start, end, string, reserved;
};
struct __attribute__((packed)) MapEntry {
  u32 size;  // of what follows
  u64 address, length;
  u32 type;
};
static_assert(sizeof(Info) == 88 && sizeof(Module) == 16 && sizeof(MapEntry) == 24);

}  // namespace bulkhead::spec::multiboot
