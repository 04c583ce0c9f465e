// One kernel module file: unpacking it and reading what it says about itself. Pure functions on bytes from outside.
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ints.h"
#include "base/result.h"

namespace bulkhead::zone {

inline constexpr u64 kMaxModuleSize = 64_MiB;

// What a module's .modinfo section says, as far as loading order goes. Names with '_' for '-'.
struct ModuleInfo {
  std::vector<std::string> depends;   // "depends=": must be loaded before
  std::vector<std::string> pre_soft;  // "softdep=pre: ...": should be loaded before, if there is such a module
};

// The file's content with xz, zstd or gzip taken off (told by its first bytes). Errors: broken, or over kMaxModuleSize.
Result<std::string> unpack_module(std::string file);

// Errors: not a 64-bit little-endian relocatable ELF file, or a section lies outside of the file.
Result<ModuleInfo> parse_module(std::span<const std::byte> elf);

// "virtio-rng.ko.xz" -> "virtio_rng"; empty when the name is no module's.
std::string module_name(std::string_view file_name);

}  // namespace bulkhead::zone
