// Segments of a kernel in guest memory: do they fit, put them there, unpack a payload with guest memory as scratch.
#pragma once
#include "abi/boot_info.h"
#include "abi/image/bzimage.h"
#include "abi/image/elf.h"
#include "memory/guest_memory.h"

namespace bulkhead::abi {

// Errors: a segment lies where the machine keeps boot data, or outside RAM; then how much memory is needed.
Result<void> check_segments_fit(const ElfFile& elf, const GuestMemory& memory);

// Copies every segment. They were checked to fit, and memory is zero where they do not reach.
Result<void> copy_segments(const ByteSource& source, const ElfFile& elf, const GuestMemory& memory);

// From the lowest to the highest byte of all segments.
Extent extent_of(const ElfFile& elf);

// Unpacks the payload of a bzImage (an ELF file), loads it and leaves nothing else behind.
Result<ElfFile> load_payload(const ByteSource& source, const SetupHeader& header, const GuestMemory& memory);

// How much RAM a zone must have so that guest-physical `end` is RAM, rounded up to MiB, as text.
std::string memory_needed(u64 end);

}  // namespace bulkhead::abi
