// What differs between two outcomes of a case.
#pragma once
#include <span>
#include <string>

#include "tests/insn/case.h"

namespace bulkhead::insn {

enum class Verdict {
  kSame,       // in all that is defined
  kDeadFlags,  // but for arithmetic flags at an exception
  kDifferent
};
// Memory: the writable pages.
Verdict compare(const Case& test, const Outcome& expected, std::span<const u8> expected_memory, const Outcome& actual,
                std::span<const u8> actual_memory);

// The case and the differences, for a person: bytes, disassembly, initial values of what is involved, what differs.
std::string report(const Case& test, std::string_view runner, const Outcome& expected,
                   std::span<const u8> expected_memory, const Outcome& actual, std::span<const u8> actual_memory);
// The instructions, one a line.
std::string disassemble(const Case& test);

}  // namespace bulkhead::insn
