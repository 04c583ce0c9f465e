// Text in low memory for a kernel to read.
#pragma once
#include <string_view>

#include "base/result.h"
#include "memory/guest_memory.h"

namespace bulkhead::abi {

std::unexpected<Error> no_low_memory();

// The command line at kCommandLine, ended by a zero. Errors: longer than `limit` bytes, or a zero in it.
Result<void> write_command_line(std::string_view text, u64 limit, const GuestMemory& memory);

// Text and a final zero. Errors: not RAM.
Result<void> write_text(std::string_view text, Gpa at, const GuestMemory& memory);

}  // namespace bulkhead::abi
