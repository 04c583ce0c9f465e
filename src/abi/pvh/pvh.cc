#include "abi/pvh/pvh.h"

#include "abi/boot_text.h"
#include "abi/flat_state.h"
#include "spec/pvh.h"

namespace bulkhead::abi {
namespace {
namespace ps = spec::pvh;

constexpr Gpa kMap = kBootLists;
constexpr Gpa kModules = kBootLists + 0x1000;
constexpr u64 kMaxMap = 0x1000 / sizeof(ps::MapEntry);

Result<void> write_map(const BootInfo& info, const GuestMemory& memory) {
  if (info.memory_map.size() > kMaxMap) return fail("the memory map has more than {} entries", kMaxMap);
  Gpa at = kMap;
  for (const MapEntry& entry : info.memory_map) {
    if (!memory.store(at, ps::MapEntry{entry.extent.start.value, entry.extent.size, entry.type, 0}))
      return no_low_memory();
    at = at + sizeof(ps::MapEntry);
  }
  return {};
}
}  // namespace

Result<void> prepare_pvh(const Kernel& kernel, const BootInfo& info, const GuestMemory& memory,
                         engine::VcpuState& state) {
  BH_TRY(write_command_line(info.command_line, kernel.command_line_limit(), memory));
  BH_TRY(write_map(info, memory));
  ps::StartInfo start{};
  start.magic = ps::kMagic;
  start.version = ps::kVersion;
  start.command_line = kCommandLine.value;
  start.rsdp = info.rsdp.value;
  start.memory_map = kMap.value;
  start.memory_map_entries = static_cast<u32>(info.memory_map.size());
  if (info.initrd) {
    if (!memory.store(kModules, ps::Module{info.initrd->start.value, info.initrd->size, 0, 0})) return no_low_memory();
    start.modules = kModules.value;
    start.module_count = 1;
  }
  if (!memory.store(kBootStructure, start)) return no_low_memory();
  enter_flat32(state, static_cast<u32>(kernel.entry));
  state.gpr[3] = kBootStructure.value;  // EBX
  return {};
}

}  // namespace bulkhead::abi
