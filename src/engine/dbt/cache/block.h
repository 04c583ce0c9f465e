// A translated block: a run of guest instructions on one page with one entry, and where its parts came from.
#pragma once
#include <algorithm>

#include "base/bits.h"
#include "engine/dbt/front/insn.h"

namespace bulkhead::engine::dbt {

struct Block;

// Bytes of a page, as offsets from its start; empty at first.
struct Reach {
  u16 low = kPageSize, high = 0;
  void add(u64 from, u64 to) {
    low = std::min(low, static_cast<u16>(from));
    high = std::max(high, static_cast<u16>(std::min(to, kPageSize)));
  }
  void add(Reach other) { add(other.low, other.high); }
};

// One guest instruction within a block. Entries ascend by host_offset; an instruction's code reaches to the next entry.
struct InsnMark {
  u32 host_offset;    // from the block's first byte of code
  u16 guest_offset;   // from Block::rip
  u16 flags_in_host;  // 1: while its last step runs, the guest's arithmetic flags are in the host's
};

// A jump out of a block to a known address. `site` is its rel32; unlinked it leads to `stub`.
struct Link {
  u8* site;            // writable address of the rel32
  const u8* stub;      // executable address
  const u8* site_end;  // executable address behind the rel32
  u64 target_rip;
  Block* to;  // nullptr when unlinked
  Link* next_incoming;
  bool backward = true;  // such a link leads to the target's poll
  u8 loop_tries = 0;     // how often it may still turn out not to close a loop that only counts (emit/counted_loop.h)
};

struct Block {
  u64 rip;
  u64 gpa;
  u32 key;  // what of the CPU's mode the code depends on (Translator::key())
  u16 guest_size;
  u16 mark_count;
  const u8* code;      // executable
  const u8* unpolled;  // the same, behind the look at CpuState::pending
  u32 code_size;       // cold parts included
  Reach reach;         // on its own page
  bool valid;
  bool crosses_page;  // its only instruction lies on two pages; never linked to
  u64 second_gpa;     // of the second page then
  InsnMark* marks;
  Block* next_in_bucket;
  Link* incoming;

  // Whether writing these bytes, on one page, may make it wrong. What it knows of other pages is not told apart.
  bool was_made_from(u64 at, u64 size) const {
    const u64 offset = at % kPageSize;
    return align_down(at, kPageSize) != align_down(gpa, kPageSize) ||
           (offset < reach.high && offset + size > reach.low);
  }
};

// A call of the interpreter from translated code.
struct InterpretSite {
  Insn insn;
  u64 rip;
  bool shadow_ends_here;  // STI, and the next instruction is in the same block: nothing comes between them anyway
  bool in_vector_block;   // what follows may need the guest's vector state in the host's registers
};

}  // namespace bulkhead::engine::dbt
