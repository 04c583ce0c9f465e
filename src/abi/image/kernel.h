// From a kernel file to a kernel in guest memory, whatever the file's format.
#pragma once
#include <optional>
#include <string>

#include "abi/boot_info.h"
#include "abi/image/bzimage.h"
#include "abi/image/elf.h"
#include "abi/image/multiboot_header.h"
#include "memory/guest_memory.h"

namespace bulkhead::abi {

enum class Protocol : u8 { kPvh, kLinux64, kMultiboot, kXenPv };
std::string_view protocol_name(Protocol protocol);

struct Kernel {
  std::string path;
  Protocol protocol = Protocol::kPvh;
  u64 entry = 0;  // guest-physical; below 4 GiB for kPvh and kMultiboot; for kXenPv a virtual address (xen_notes)
  ElfFile elf;    // what was loaded; also for images that are not ELF
  std::optional<SetupHeader> setup;  // of a bzImage
  Extent loaded;                     // from the lowest byte to the end of what the kernel says that it needs
  std::string description;           // e.g. "bzImage 6.1.0-43-cloud-amd64 (lz4), PVH entry"

  // Highest end of an initrd that this kernel can use.
  Gpa initrd_limit() const;
  // Longest command line in bytes, without its end.
  u64 command_line_limit() const;
};

// Puts the kernel into `memory`, which is fresh: all zero. `wanted` empty means: PVH if the kernel has its entry note,
// else the Linux boot protocol, else Multiboot. While unpacking, free guest memory is the scratch space, so that the
// monitor needs none; it is zero again afterwards.
// Errors name the file: truncated, corrupt, not x86, unknown format, no such entry, too big (with how much it needs).
Result<Kernel> load_kernel(const std::string& path, const GuestMemory& memory, std::optional<Protocol> wanted);
// The same from any source; `path` is only for messages, and they do not name it.
Result<Kernel> load_kernel(const ByteSource& source, const std::string& path, const GuestMemory& memory,
                           std::optional<Protocol> wanted);

// Puts a file (an initrd) as high as possible below `limit` and above the kernel. Errors: unreadable, or it does not
// fit (with numbers).
Result<Extent> load_high(std::string_view what, const std::string& path, const GuestMemory& memory,
                         const Kernel& kernel, Gpa limit);
// Puts a file at the first page at or above `at`. `end` of what is there is returned in the extent.
Result<Extent> load_at(std::string_view what, const std::string& path, const GuestMemory& memory, Gpa at);

}  // namespace bulkhead::abi
