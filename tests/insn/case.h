// A test case, what a machine looks like before and after it, and who can run it.
#pragma once
#include <array>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "base/ints.h"

namespace bulkhead::insn {

// Where things lie, the same on the host and in the guest. Below 2 GiB, so that absolute 32-bit addressing reaches all
// of it.
inline constexpr u64 kCodeBase = 0x10000000, kCodeSize = 0x40000;  // readable, executable
inline constexpr u64 kDataBase = 0x20000000;  // two writable pages, one read-only, nothing around them
inline constexpr u64 kWritableSize = 0x2000, kReadOnlySize = 0x1000, kDataSize = kWritableSize + kReadOnlySize;
inline constexpr u64 kGsBase = kDataBase + 0x800;

inline constexpr u64 kComparedFlags = 0xcd5;  // CF PF AF ZF SF DF OF

// Everything that an instruction can change in registers. Vector state in a form without unused bytes, comparable by
// memcmp.
struct Registers {
  std::array<u64, 16> gpr{};
  u64 rip = 0;
  u64 flags = 2;
  u32 mxcsr = 0x1f80;
  u16 fcw = 0x37f, fsw = 0;
  u8 ftw = 0;  // abridged: 1 = in use
  std::array<u8, 7> reserved{};
  std::array<std::array<u8, 10>, 8> st{};  // ST0..7
  std::array<u64, 8> k{};
  std::array<std::array<u64, 8>, 32> zmm{};
};

inline constexpr int kNoFault = -1, kStuck = 255;
struct Outcome {
  Registers registers;
  int vector = kNoFault;  // exception, kNoFault when the end was reached, kStuck when neither happened
  u32 error = 0;          // error code, 0 where there is none
  u64 address = 0;        // CR2 for #PF
};

// `size` bytes put into memory before the case runs.
struct Patch {
  u64 address = 0;
  u8 size = 0;
  std::array<u8, 64> bytes{};
};

struct Case {
  static constexpr unsigned kMaxCode = 96, kMaxInsns = 6, kMaxPatches = 8;
  u64 seed = 0, index = 0;
  u64 start = 0;  // address of the code
  std::array<u8, kMaxCode> code{};
  u8 length = 0;
  u8 insn_count = 0;
  std::array<u8, kMaxInsns> insn_offset{};
  Registers before;
  std::array<Patch, kMaxPatches> patches{};
  u8 patch_count = 0;
  Patch ignored;  // address and size: memory that is not compared (x87 pointers)
  bool any_page_fault =
      false;                // its address and error code don't count: big and masked operands are touched in any order
  u64 undefined_flags = 0;  // at the end
  u64 undefined_anywhere = 0;  // after any of the instructions
  u64 end() const { return start + length; }
  std::span<const u8> bytes() const { return {code.data(), length}; }
};
// Room kept behind the code for whatever ends a case: 14 bytes.
inline constexpr unsigned kTerminatorSize = 14;

// What writable memory holds before the patches.
const std::array<u8, kDataSize>& initial_data();

// Runs cases of one batch. Not thread-safe; one per process.
class CaseRunner {
 public:
  virtual ~CaseRunner() = default;
  virtual std::string_view name() const = 0;
  // False for a runner that may lose arithmetic flags which nothing reads any more before an exception shows them.
  virtual bool exact_flags_at_exceptions() const { return true; }
  // Puts the code of these cases where they say. They do not overlap.
  virtual void load(std::span<const Case> batch) = 0;
  // Runs one of them on fresh memory.
  virtual void run(const Case& test, Outcome& outcome) = 0;
  // The writable pages as the last run left them.
  virtual std::span<const u8> memory() const = 0;
};

}  // namespace bulkhead::insn
