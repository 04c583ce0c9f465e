// Stack windows: a run of accesses to the stack whose distances from each other are known when the block is made
// (pushes, pops, the return address, [rsp + n]) looks its page up in the TLB once, for all of them. A window that does
// not lie on one page that may be accessed so sends its block's run to a block that looks at every access by itself
// (Translator::find_code_without_windows()), so that faults come where they belong.
#pragma once
#include <optional>

#include "engine/dbt/emit/classify.h"

namespace bulkhead::engine::dbt {

// What one instruction does to the stack, seen from the RSP before it.
struct StackEffect {
  bool accesses = false;
  bool writes = false;
  i32 offset = 0;     // of the access
  u32 size = 0;       // of the access, bytes
  bool lost = false;  // RSP afterwards is not known, or the TLB may have changed
  i32 moves = 0;      // RSP afterwards, if it is known
};
StackEffect stack_effect(const Insn& insn, InsnKind kind);

inline constexpr u32 kMaxWindow = 128;  // bytes
struct StackWindow {
  i32 low = 0, high = 0;  // what it covers, seen from the first access's RSP
  u32 accesses = 0;
  bool writes = false;

  // Takes the access at `offset` in; false if the window would become too large.
  bool take(i32 offset, u32 size, bool write);
};

}  // namespace bulkhead::engine::dbt
