// Four-level page tables in guest memory, built by a test.
#pragma once
#include "base/assert.h"
#include "base/bits.h"
#include "memory/guest_memory.h"

namespace bulkhead::insn {

class GuestPages {
 public:
  static constexpr u64 kPresent = 1, kWritable = 2, kUser = 4, kNoExecute = u64{1} << 63;

  // Tables grow upwards from `root`, which is CR3.
  GuestPages(GuestMemory& memory, u64 root) : memory_{memory}, root_{root}, next_{root + kPageSize} {}

  void map(u64 linear, u64 gpa, u64 size, u64 flags) {
    for (u64 at = 0; at < size; at += kPageSize) map_page(linear + at, (gpa + at) | flags | kPresent);
  }

 private:
  void map_page(u64 linear, u64 entry) {
    u64 table = root_;
    for (unsigned level = 3; level > 0; --level) {
      const u64 slot = table + 8 * bits(linear, 12 + 9 * level + 8, 12 + 9 * level);
      u64 next = *memory_.load<u64>(Gpa{slot});
      if (!(next & kPresent)) {
        next = next_ | kPresent | kWritable | kUser;
        next_ += kPageSize;
        BH_ASSERT(memory_.store(Gpa{slot}, next));
      }
      table = align_down(next, kPageSize);
    }
    BH_ASSERT(memory_.store(Gpa{table + 8 * bits(linear, 20, 12)}, entry));
  }

  GuestMemory& memory_;
  u64 root_, next_;
};

}  // namespace bulkhead::insn
