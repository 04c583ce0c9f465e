// Loops that only count: registers that grow by constants until a comparison comes out differently, and nothing else. A
// PV kernel's start has one of 134 million rounds (Linux's xen_rebuild_p2m_list, for memory that may be added later).
// What such a loop does in many rounds is a multiplication. Loops with a single counter are how programs wait, and are
// left to take their time.
#pragma once
#include <array>
#include <optional>
#include <span>

#include "base/ints.h"

namespace bulkhead::engine::dbt {

struct LoopSkip {
  u64 rounds = 0;
  std::array<u64, 16> gpr{};  // as they are at the loop's head, so many rounds later
};

// Follows the code from `head` with the registers' values until it is back there. Nothing, if on that way it meets
// another effect than on registers, flags that were not set on it, registers that do not change by a constant, or if it
// is not good for many rounds more. `page` is the page that the loop lies on, `page_rip` its linear address. At least
// one round is left to be executed, and it sets all flags that the loop sets before it branches.
std::optional<LoopSkip> skip_counted_loop(std::span<const u8> page, u64 page_rip, u64 head,
                                          std::span<const u64, 16> gpr);

}  // namespace bulkhead::engine::dbt
