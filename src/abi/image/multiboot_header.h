// The Multiboot 1 header, found in the first 8 KiB of an image.
#pragma once
#include <optional>

#include "abi/image/byte_source.h"
#include "abi/image/elf.h"
#include "spec/multiboot.h"

namespace bulkhead::abi {

struct MultibootHeader {
  spec::multiboot::Header fields{};
  u64 offset = 0;  // in the file
  bool has_addresses() const { return (fields.flags & spec::multiboot::kHasAddresses) != 0; }
};

// Nothing when there is no header with a right checksum.
std::optional<MultibootHeader> find_multiboot_header(const ByteSource& source);

// What a header with addresses says is to be loaded, and where to enter (the "a.out kludge"). Errors: addresses that
// contradict each other or the file's length, or mandatory features that we do not have.
Result<ElfFile> multiboot_raw_layout(const ByteSource& source, const MultibootHeader& header);

// Errors: the header demands a feature that we do not have (a video mode).
Result<void> check_multiboot_flags(const MultibootHeader& header);

}  // namespace bulkhead::abi
