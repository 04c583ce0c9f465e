// Snippets with the registers they must leave, written by hand.
#pragma once
#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

#include "tests/insn/case.h"

namespace Xbyak {
class CodeGenerator;
}

namespace bulkhead::insn {

struct RegisterValue {
  u8 reg;  // encoding order: 0 = RAX
  u64 value;
};
struct AsmCase {
  std::string_view name;
  void (*emit)(Xbyak::CodeGenerator& code);
  std::vector<RegisterValue> before;
  std::vector<RegisterValue> after;  // only these are looked at
  u64 flags_mask = 0, flags = 0;     // flags after
  int vector = kNoFault;
  u64 fault_offset = 0;  // from the start of the code, when vector is not kNoFault
  u32 error = 0;
};
// RSI points at kDataBase in every case; memory holds initial_data().
std::span<const AsmCase> asm_cases();

}  // namespace bulkhead::insn
