// The Linux x86 boot protocol: offsets into the setup header of a bzImage and into the zero page
// [linux: Documentation/arch/x86/boot.rst, zero-page.rst]. The header's offsets are the same in both.
#pragma once
#include "base/ints.h"

namespace bulkhead::spec::linux_boot {

// Setup header, from the start of the file.
inline constexpr u32 kSetupSectors = 0x1f1;     // u8, 0 means 4
inline constexpr u32 kBootFlag = 0x1fe;         // u16
inline constexpr u32 kJump = 0x200;             // u16; its second byte tells where the header ends, from 0x202
inline constexpr u32 kHeaderMagic = 0x202;      // u32 "HdrS"
inline constexpr u32 kVersion = 0x206;          // u16, 0x0208 has the payload's place
inline constexpr u32 kKernelVersion = 0x20e;    // u16, a string at 0x200 + this
inline constexpr u32 kTypeOfLoader = 0x210;     // u8
inline constexpr u32 kLoadFlags = 0x211;        // u8
inline constexpr u32 kRamdiskImage = 0x218;     // u32
inline constexpr u32 kRamdiskSize = 0x21c;      // u32
inline constexpr u32 kCommandLine = 0x228;      // u32
inline constexpr u32 kInitrdAddrMax = 0x22c;    // u32, last byte that an initrd may use
inline constexpr u32 kAlignment = 0x230;        // u32
inline constexpr u32 kXLoadFlags = 0x236;       // u16
inline constexpr u32 kCommandLineSize = 0x238;  // u32, without the final zero
inline constexpr u32 kPayloadOffset = 0x248;    // u32, from the start of the protected-mode code
inline constexpr u32 kPayloadLength = 0x24c;    // u32
inline constexpr u32 kPrefAddress = 0x258;      // u64
inline constexpr u32 kInitSize = 0x260;         // u32, memory that the kernel uses from its load address on
inline constexpr u32 kSetupHeaderStart = 0x1f1;
inline constexpr u32 kSetupHeaderLimit = 0x290;  // e820_table and friends begin after this in the zero page

inline constexpr u16 kBootFlagValue = 0xaa55;
inline constexpr u32 kHeaderMagicValue = 0x53726448;  // "HdrS"
inline constexpr u16 kMinVersion = 0x0208;
inline constexpr u8 kLoadedHigh = 0x01;  // in kLoadFlags
inline constexpr u8 kUnknownLoader = 0xff;
inline constexpr u32 kSectorSize = 512;

// Zero page (struct boot_params).
inline constexpr u32 kAcpiRsdp = 0x070;         // u64
inline constexpr u32 kExtRamdiskImage = 0x0c0;  // u32, high halves
inline constexpr u32 kExtRamdiskSize = 0x0c4;   // u32
inline constexpr u32 kExtCommandLine = 0x0c8;   // u32
inline constexpr u32 kE820Entries = 0x1e8;      // u8
inline constexpr u32 kE820Table = 0x2d0;        // 20 bytes each
inline constexpr u32 kE820EntrySize = 20;
inline constexpr u32 kE820Max = 128;
inline constexpr u32 kZeroPageSize = 4096;

inline constexpr u32 kDefaultInitrdAddrMax = 0x37ffffff;
inline constexpr u32 kDefaultCommandLineSize = 2047;  // x86's COMMAND_LINE_SIZE, less the final zero

// Selectors that startup_64 may rely on.
inline constexpr u16 kBootCs = 0x10, kBootDs = 0x18;

// Legacy lz4 frames, as `lz4 -l` makes them [lz4_Frame_format.md "Legacy frame"].
inline constexpr u32 kLz4LegacyMagic = 0x184c2102;
inline constexpr u32 kLz4LegacyBlock = 8 << 20;

}  // namespace bulkhead::spec::linux_boot
