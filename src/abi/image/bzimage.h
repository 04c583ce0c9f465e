// The setup header of a bzImage, checked [linux-boot "The Real-Mode Kernel Header"].
#pragma once
#include <string>
#include <vector>

#include "abi/image/byte_source.h"
#include "abi/image/decompress.h"

namespace bulkhead::abi {

struct SetupHeader {
  std::vector<std::byte> bytes;  // of the file from 0x1f1 on, as long as the header says: goes into the zero page
  std::string kernel_version;    // printable; empty if there is none
  u64 payload_offset = 0;        // in the file
  u64 payload_size = 0;          // bytes, with whatever trailer the kernel's build appends
  u64 unpacked_size = 0;         // bytes of the unpacked payload
  Compression compression = Compression::kNone;
  u64 pref_address = 0, init_size = 0;  // memory that the running kernel wants, 0 if not said
  u32 initrd_max = 0;                   // last byte that an initrd may use
  u32 command_line_size = 0;            // longest command line in bytes, without its end
  // The payload without its trailer, as `decompress` wants it.
  u64 packed_size() const {
    const bool own_trailer = compression == Compression::kGzip || compression == Compression::kNone;
    return own_trailer ? payload_size : payload_size - 4;
  }
};

bool looks_like_bzimage(const ByteSource& source);

// Errors: truncated, too old a protocol (before 2.08, Linux 2.6.26), or a payload in an unknown format.
Result<SetupHeader> parse_bzimage(const ByteSource& source);

}  // namespace bulkhead::abi
