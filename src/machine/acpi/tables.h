// The ACPI tables of a machine, laid out for guest memory [acpi-6.5 §5.2]: RSDP, XSDT, FADT, FACS, MADT, DSDT.
#pragma once
#include <vector>

#include "base/ints.h"
#include "base/result.h"

namespace bulkhead::machine {

struct VirtioMmioWindow {
  Gpa base;  // below 4 GiB
  u64 size = 0;
  Gsi gsi;
  bool edge = false;  // of the interrupt; otherwise a level
};

struct AcpiConfig {
  unsigned vcpus = 1;  // APIC IDs 0..vcpus-1, at most 255
  Gpa lapic, ioapic;
  std::vector<VirtioMmioWindow> virtio;  // in the order of their numbers
  bool uart = true;                      // COM1 on IRQ 4
  bool rtc = true;                       // whether the CMOS clock is told of
};

// The system control interrupt: level, active high.
inline constexpr Gsi kSciGsi{9};

// All tables as one run of bytes for guest-physical `base` (64-byte aligned), the RSDP first. Errors: longer than
// `room`.
Result<std::vector<u8>> build_acpi_tables(const AcpiConfig& config, Gpa base, u64 room);

// The body of the DSDT (AML without the table header).
std::vector<u8> build_dsdt_body(const AcpiConfig& config);

}  // namespace bulkhead::machine
