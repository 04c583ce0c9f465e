// What differs between two outcomes of a case.
#pragma once
#include <span>
#include <string>

#include "tests/insn/case.h"

namespace bulkhead::insn {

// True if they agree in all that is defined. Memory: the writable pages.
bool same(const Case& test, const Outcome& expected, std::span<const u8> expected_memory, const Outcome& actual,
          std::span<const u8> actual_memory);

// The case and the differences, for a person: bytes, disassembly, initial values of what is involved, what differs.
std::string report(const Case& test, std::string_view runner, const Outcome& expected, std::span<const u8> expected_memory,
                   const Outcome& actual, std::span<const u8> actual_memory);
// The instructions, one a line.
std::string disassemble(const Case& test);

}  // namespace bulkhead::insn
