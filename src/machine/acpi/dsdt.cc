// The namespace: what a guest cannot find out by probing.
#include <fmt/format.h>

#include "machine/acpi/aml.h"
#include "machine/acpi/tables.h"
#include "spec/acpi.h"

namespace bulkhead::machine {
namespace {

// A virtio device behind MMIO registers: the ID that virtio_mmio's ACPI binding knows.
aml::Bytes virtio_device(unsigned number, const VirtioMmioWindow& window) {
  return aml::device(
      fmt::format("VM{:02X}", number),
      aml::concat({aml::name("_HID", aml::string("LNRO0005")), aml::name("_UID", aml::integer(number)),
                   aml::name("_CCA", aml::integer(1)),  // DMA is coherent
                   aml::resources({aml::memory32(static_cast<u32>(window.base.value), static_cast<u32>(window.size)),
                                   aml::interrupt_high(window.gsi.value, window.edge)})}));
}

aml::Bytes isa_device(std::string_view path, std::string_view id, u16 port, u8 ports, u8 irq) {
  return aml::device(path, aml::concat({aml::name("_HID", aml::eisa_id(id)), aml::name("_UID", aml::integer(0)),
                                        aml::resources({aml::io(port, ports), aml::irq(irq)})}));
}
}  // namespace

std::vector<u8> build_dsdt_body(const AcpiConfig& config) {
  aml::Bytes devices;
  if (config.rtc) devices = isa_device("RTC", "PNP0B00", 0x70, 2, 8);
  if (config.uart) devices = aml::concat({devices, isa_device("COM1", "PNP0501", 0x3f8, 8, 4)});
  for (unsigned i = 0; i < config.virtio.size(); ++i)
    devices = aml::concat({devices, virtio_device(i, config.virtio[i])});
  const aml::Bytes soft_off =
      aml::package({aml::integer(spec::acpi::kPm1SleepTypeS5), aml::integer(spec::acpi::kPm1SleepTypeS5),
                    aml::integer(0), aml::integer(0)});
  return aml::concat({aml::name("\\_S5", soft_off), aml::scope("\\_SB", devices)});
}

}  // namespace bulkhead::machine
