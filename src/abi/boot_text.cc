#include "abi/boot_text.h"

#include "abi/boot_info.h"

namespace bulkhead::abi {

std::unexpected<Error> no_low_memory() {
  return fail("the zone's memory is too small to hold boot data: give it at least 2 MiB");
}

Result<void> write_text(std::string_view text, Gpa at, const GuestMemory& memory) {
  if (!memory.write(at, std::as_bytes(std::span{text})) || !memory.store(at + text.size(), '\0'))
    return no_low_memory();
  return {};
}

Result<void> write_command_line(std::string_view text, u64 limit, const GuestMemory& memory) {
  if (text.size() > limit)
    return fail("the kernel's command line has {} bytes, but this kernel takes at most {}", text.size(), limit);
  if (text.find('\0') != text.npos) return fail("the kernel's command line has a zero byte in it");
  return write_text(text, kCommandLine, memory);
}

}  // namespace bulkhead::abi
