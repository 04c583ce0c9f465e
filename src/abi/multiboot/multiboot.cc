#include "abi/multiboot/multiboot.h"

#include "abi/boot_text.h"
#include "abi/flat_state.h"
#include "spec/e820.h"
#include "spec/multiboot.h"

namespace bulkhead::abi {
namespace {
namespace mb = spec::multiboot;

constexpr Gpa kMap = kBootLists;
constexpr Gpa kModules = kBootLists + 0x1000;
constexpr u64 kMaxMap = 0x1000 / sizeof(mb::MapEntry);
constexpr u64 kMaxModules = 0x1000 / sizeof(mb::Module);
constexpr std::string_view kLoaderName = "Bulkhead";

Result<void> write_map(const BootInfo& info, const GuestMemory& memory, mb::Info& out) {
  if (info.memory_map.size() > kMaxMap) return fail("the memory map has more than {} entries", kMaxMap);
  Gpa at = kMap;
  for (const MapEntry& entry : info.memory_map) {
    const mb::MapEntry written{sizeof(mb::MapEntry) - sizeof(u32), entry.extent.start.value, entry.extent.size,
                               entry.type};
    if (!memory.store(at, written)) return no_low_memory();
    at = at + sizeof written;
    if (entry.type != spec::e820::kRam) continue;
    // mem_lower: RAM from 0; mem_upper: RAM from 1 MiB up to the first hole.
    if (entry.extent.start == Gpa{0}) out.mem_lower = static_cast<u32>(entry.extent.size >> 10);
    if (entry.extent.start == Gpa{1_MiB}) out.mem_upper = static_cast<u32>(entry.extent.size >> 10);
  }
  out.memory_map = static_cast<u32>(kMap.value);
  out.memory_map_length = static_cast<u32>(at - kMap);
  return {};
}

Result<void> write_modules(const BootInfo& info, const GuestMemory& memory, mb::Info& out) {
  std::vector<Module> modules = info.modules;
  if (info.initrd) modules.insert(modules.begin(), Module{*info.initrd, "initrd"});
  if (modules.size() > kMaxModules) return fail("there are more than {} Multiboot modules", kMaxModules);
  Gpa text = kModuleStrings;
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const Module& module = modules[i];
    if (module.string.size() + 1 > kModuleStrings + kBootTextSize - text)
      return fail("the strings of the Multiboot modules are longer than {} bytes in all", kBootTextSize);
    BH_TRY(write_text(module.string, text, memory));
    const mb::Module entry{static_cast<u32>(module.extent.start.value), static_cast<u32>(module.extent.end().value),
                           static_cast<u32>(text.value), 0};
    if (!memory.store(kModules + i * sizeof entry, entry)) return no_low_memory();
    text = text + module.string.size() + 1;
  }
  out.modules = static_cast<u32>(kModules.value);
  out.module_count = static_cast<u32>(modules.size());
  return {};
}
}  // namespace

Result<void> prepare_multiboot(const Kernel& kernel, const BootInfo& info, const GuestMemory& memory,
                               engine::VcpuState& state) {
  const std::string line = info.command_line.empty() ? kernel.path : kernel.path + " " + info.command_line;
  BH_TRY(write_command_line(line, kernel.command_line_limit(), memory));
  mb::Info out{};
  out.flags = mb::kInfoMemory | mb::kInfoCommandLine | mb::kInfoModules | mb::kInfoMemoryMap | mb::kInfoLoaderName;
  BH_TRY(write_map(info, memory, out));
  BH_TRY(write_modules(info, memory, out));
  constexpr Gpa kName = kBootStructure + 0x800;
  BH_TRY(write_text(kLoaderName, kName, memory));
  out.command_line = static_cast<u32>(kCommandLine.value);
  out.loader_name = static_cast<u32>(kName.value);
  if (!memory.store(kBootStructure, out)) return no_low_memory();
  enter_flat32(state, static_cast<u32>(kernel.entry));
  state.gpr[0] = mb::kEntryMagic;       // EAX
  state.gpr[3] = kBootStructure.value;  // EBX
  return {};
}

}  // namespace bulkhead::abi
