// Where things are in the machine `microvm`, and which interrupt belongs to what.
#pragma once
#include <array>

#include "abi/boot_info.h"
#include "base/ints.h"
#include "machine/acpi/tables.h"

namespace bulkhead::machine::layout {

// RAM ends here at the latest and goes on at 4 GiB.
inline constexpr Gpa kHoleStart{0xC0000000};
inline constexpr Gpa kHoleEnd{4_GiB};
inline constexpr Gpa kVirtioWindows{0xD0000000};  // number n at + n * kVirtioStride
inline constexpr u64 kVirtioStride = 0x1000;
inline constexpr Gpa kIoApic{0xFEC00000};
inline constexpr Gpa kLapic{0xFEE00000};  // the engine's

// Pages of ours that a guest with Xen's ABI is told of; the map says reserved.
inline constexpr Gpa kXenPages{0xFEFF8000};
inline constexpr u64 kXenPagesSize = 0x8000;
inline constexpr Gpa kXenStorePage{0xFEFFC000}, kXenConsolePage{0xFEFFF000};

inline constexpr Gpa kAcpiTables{0xE0000};
inline constexpr u64 kAcpiRoom = abi::kFirmwareEnd - kAcpiTables;

// BIOS data area words that kernels read before they trust an RSDP search [bda].
inline constexpr Gpa kBdaEbdaSegment{0x40E};
inline constexpr Gpa kBdaBaseMemoryKib{0x413};

// ISA interrupts: timer 0, cascade 2, COM1 4, RTC 8, SCI 9, FPU 13.
inline constexpr u32 kPitIrq = 0, kUartIrq = 4, kRtcIrq = 8;

// Interrupts for virtio devices, best first: those above 15 have no legacy meaning.
inline constexpr std::array<u32, 16> kVirtioGsis{16, 17, 18, 19, 20, 21, 22, 23, 5, 6, 7, 10, 11, 12, 14, 15};

inline constexpr VirtioMmioWindow virtio_window(unsigned number) {
  return {kVirtioWindows + number * kVirtioStride, kVirtioStride, Gsi{kVirtioGsis[number]}};
}

inline constexpr unsigned kMaxVcpus = 8;
inline constexpr u64 kMinMemory = 2_MiB, kMaxMemory = 512_GiB;

}  // namespace bulkhead::machine::layout
