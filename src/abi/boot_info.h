// What every boot protocol tells a kernel, and where in low memory it is written.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "base/ints.h"

namespace bulkhead::abi {

struct Extent {
  Gpa start;
  u64 size = 0;  // bytes
  Gpa end() const { return start + size; }
  bool overlaps(const Extent& other) const { return start < other.end() && other.start < end(); }
  bool operator==(const Extent&) const = default;
};

struct MapEntry {
  Extent extent;
  u32 type = 0;  // spec::e820
  bool operator==(const MapEntry&) const = default;
};

struct Module {
  Extent extent;
  std::string string;  // what the boot protocol hands over with it
};

struct BootInfo {
  std::vector<MapEntry> memory_map;  // ascending, not overlapping
  std::string command_line;
  std::optional<Extent> initrd;
  std::vector<Module> modules;  // Multiboot only
  Gpa rsdp;
};

// Low memory while a kernel is being entered. The kernel may reuse all of it once it has read what it was handed; a
// kernel's own segments must stay out of [kBootArea, kFirmwareEnd).
inline constexpr Gpa kBootArea{0x80000};
inline constexpr Gpa kPageTables{0x80000};  // 6 pages, 64-bit entry only
inline constexpr Gpa kBootGdt{0x86000};
inline constexpr Gpa kBootStructure{0x87000};  // zero page, start info or Multiboot information
inline constexpr Gpa kBootLists{0x88000};      // memory map and module list, 8 KiB
inline constexpr Gpa kCommandLine{0x8a000};    // 8 KiB
inline constexpr Gpa kModuleStrings{0x8c000};  // 8 KiB
inline constexpr Gpa kBootAreaEnd{0x8e000};
inline constexpr u64 kBootTextSize = 0x2000;   // of each of the two areas for text
inline constexpr Gpa kFirmwareStart{0x9fc00};  // EBDA, legacy video, ACPI tables
inline constexpr Gpa kFirmwareEnd{0x100000};

}  // namespace bulkhead::abi
