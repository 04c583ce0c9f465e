#include "machine/microvm/boot.h"

#include "abi/image/kernel.h"
#include "abi/linux/linux_boot.h"
#include "abi/multiboot/multiboot.h"
#include "abi/pvh/pvh.h"
#include "abi/xen/hypercall_sites.h"
#include "engine/cpu_model.h"
#include "machine/microvm/layout.h"
#include "spec/e820.h"

namespace bulkhead::machine {
namespace {

std::optional<abi::Protocol> wanted(BootProtocol protocol) {
  switch (protocol) {
    case BootProtocol::kAuto:
      return std::nullopt;
    case BootProtocol::kPvh:
      return abi::Protocol::kPvh;
    case BootProtocol::kLinux64:
      return abi::Protocol::kLinux64;
    case BootProtocol::kMultiboot:
      return abi::Protocol::kMultiboot;
  }
  return std::nullopt;
}

// RAM as the guest may use it; the legacy area below 1 MiB holds the ACPI tables.
std::vector<abi::MapEntry> memory_map(const MicrovmConfig& config, const GuestMemory& memory) {
  using namespace spec::e820;
  std::vector<abi::MapEntry> map{
      {{Gpa{0}, abi::kFirmwareStart.value}, kRam},
      {{abi::kFirmwareStart, abi::kFirmwareEnd - abi::kFirmwareStart}, kReserved},
  };
  for (const RamRange& range : memory.ranges()) {
    const Gpa start = std::max(range.start, abi::kFirmwareEnd);
    map.push_back({{start, range.start + range.size - start}, kRam});
  }
  if (config.abi == Abi::kXen) map.push_back({{layout::kXenPages, layout::kXenPagesSize}, kReserved});
  std::ranges::sort(map, {}, [](const abi::MapEntry& entry) { return entry.extent.start; });
  return map;
}

Result<void> write_firmware(const MicrovmConfig& config, const std::vector<VirtioMmioWindow>& virtio,
                            const GuestMemory& memory) {
  AcpiConfig acpi;
  acpi.vcpus = config.vcpus;
  acpi.lapic = layout::kLapic;
  acpi.ioapic = layout::kIoApic;
  acpi.virtio = virtio;
  acpi.rtc = config.abi != Abi::kXen;  // as under Xen, where the wall clock is the hypervisor's
  BH_ASSIGN(const auto tables, build_acpi_tables(acpi, layout::kAcpiTables, layout::kAcpiRoom));
  const bool written = memory.write(layout::kAcpiTables, std::as_bytes(std::span{tables})) &&
                       memory.store(layout::kBdaEbdaSegment, static_cast<u16>(abi::kFirmwareStart.value >> 4)) &&
                       memory.store(layout::kBdaBaseMemoryKib, static_cast<u16>(abi::kFirmwareStart.value >> 10));
  if (!written) return fail("the zone's memory of {} MiB has no room for firmware tables", memory.size() >> 20);
  return {};
}

// Linux on a CPU model that does not tell the TSC's rate measures it against the PIT. When the host takes our thread
// away at the wrong moment it gets that wrong by an order of magnitude, and its clock with it; so it is told.
std::string clock_words(const MicrovmConfig& config) {
  const auto model = engine::make_cpu_model(config.cpu_model, config.vcpus);
  if (!model || model->lookup(0x15, 0).ebx != 0) return {};
  return fmt::format("tsc_early_khz={}", model->tsc_hz / 1000);
}

// What Linux would otherwise find out slowly or badly, unless the user tells it: the rate of the TSC, that there is no
// PCI, which it looks for with hundreds of port accesses, and that the PIT's interrupt arrives, for which it waits 16
// ms.
std::string command_line(const MicrovmConfig& config, const abi::Kernel& kernel) {
  std::string line = config.command_line;
  if (!kernel.setup) return line;
  for (const std::string& word : {clock_words(config), std::string{"pci=off"}, std::string{"no_timer_check"}}) {
    const std::size_t value = word.find('=');
    if (line.find(value == std::string::npos ? word : word.substr(0, value + 1)) != std::string::npos) continue;
    const std::string told = line.empty() ? word : word + " " + line;  // in front: behind "--" is init's
    if (told.size() <= kernel.command_line_limit()) line = told;
  }
  return line;
}

// Multiboot modules follow the kernel, where small kernels that map little can reach them.
Result<void> load_modules(const MicrovmConfig& config, const abi::Kernel& kernel, const GuestMemory& memory,
                          abi::BootInfo& info) {
  Gpa at = std::max(kernel.loaded.end(), abi::kFirmwareEnd);
  if (!config.initrd_path.empty()) {
    BH_ASSIGN(info.initrd, abi::load_at("initrd", config.initrd_path, memory, at));
    at = info.initrd->end();
  }
  for (const std::string& module : config.modules) {
    BH_ASSIGN(const abi::Extent extent, abi::load_at("module", module.substr(0, module.find(' ')), memory, at));
    info.modules.push_back({extent, module});
    at = extent.end();
  }
  return {};
}

Result<void> load_others(const MicrovmConfig& config, const abi::Kernel& kernel, const GuestMemory& memory,
                         abi::BootInfo& info) {
  if (kernel.protocol == abi::Protocol::kMultiboot) return load_modules(config, kernel, memory, info);
  if (!config.modules.empty())
    return fail("the kernel {} is entered by {}, which has no modules; only Multiboot kernels take them", kernel.path,
                abi::protocol_name(kernel.protocol));
  if (config.initrd_path.empty()) return {};
  BH_ASSIGN(info.initrd, abi::load_high("initrd", config.initrd_path, memory, kernel, kernel.initrd_limit()));
  return {};
}

// What a Linux kernel needs beyond its image, and at once: its zeroed data, and the room that it was linked for.
void expect_start(const GuestMemory& memory, const abi::Kernel& kernel) {
  if (kernel.setup) memory.expect_use(kernel.loaded.start, kernel.loaded.size);
}

// The kernel's own instructions, where the engine does not see them.
void replace_hypercalls(const abi::Kernel& kernel, std::span<const u8> hypercall, const GuestMemory& memory) {
  const u64 size = kernel.loaded.end() - kernel.loaded.start;
  if (std::byte* const image = memory.host(kernel.loaded.start, size))
    (void)abi::xen::replace_hypercalls({image, size}, hypercall);
}
}  // namespace

Result<std::string> prepare_boot(const MicrovmConfig& config, const std::vector<VirtioMmioWindow>& virtio,
                                 const GuestMemory& memory, std::span<const u8> hypercall, engine::VcpuState& state) {
  BH_ASSIGN(const abi::Kernel kernel, abi::load_kernel(config.kernel_path, memory, wanted(config.protocol)));
  expect_start(memory, kernel);
  if (config.abi == Abi::kXen && !abi::xen::is_common_hypercall(hypercall))
    replace_hypercalls(kernel, hypercall, memory);
  abi::BootInfo info;
  info.memory_map = memory_map(config, memory);
  info.command_line = command_line(config, kernel);
  info.rsdp = layout::kAcpiTables;
  BH_TRY(load_others(config, kernel, memory, info));
  BH_TRY(write_firmware(config, virtio, memory));
  switch (kernel.protocol) {
    case abi::Protocol::kPvh:
      BH_TRY(abi::prepare_pvh(kernel, info, memory, state));
      break;
    case abi::Protocol::kLinux64:
      BH_TRY(abi::prepare_linux64(kernel, info, memory, state));
      break;
    case abi::Protocol::kMultiboot:
      BH_TRY(abi::prepare_multiboot(kernel, info, memory, state));
      break;
    case abi::Protocol::kXenPv:  // load_kernel() enters a kernel so only when asked to
      return fail("{}: the machine microvm has no Xen PV entry", config.kernel_path);
  }
  return kernel.description;
}

}  // namespace bulkhead::machine
