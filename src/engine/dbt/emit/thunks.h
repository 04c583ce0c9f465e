// Hand-written entries and exits of translated code, at the start of the code memory. See thunks.cc for the
// conventions.
#pragma once
#include <xbyak/xbyak.h>

#include "engine/dbt/emit/tables.h"

namespace bulkhead::engine::dbt {

// Guest registers live in the host's of the same name, but: RSP in R11; R8 to R11 in CpuState. R8, R9, R10 are scratch,
// RSP points at the CpuState. Arithmetic flags at block boundaries: in CpuState::jit_flags, where live.
inline constexpr int kHostOfGuestRsp = 11;
inline constexpr bool is_demoted(unsigned guest) { return guest >= 8 && guest <= 11; }
inline constexpr int host_register(unsigned guest) {
  return is_demoted(guest) ? -1 : guest == 4 ? kHostOfGuestRsp : static_cast<int>(guest);
}
inline constexpr u8 kHeldGuestRegisters[] = {0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15};

class CodeWriter : public Xbyak::CodeGenerator {
 public:
  CodeWriter(void* writable, std::size_t size) : Xbyak::CodeGenerator(size, writable) {}
};

struct Thunks {
  u32 (*enter)(CpuState*, const void* code) = nullptr;  // returns a JitExit
  const u8* exit_lookup = nullptr;                      // R8 = guest RIP
  const u8* exit_poll = nullptr;                        // R8 = guest RIP
  const u8* exit_vectors = nullptr;                     // R8 = guest RIP
  const u8* exit_link = nullptr;                        // R8 = Link*
  const u8* miss = nullptr;        // called: R8 = linear, R9D = MissBits and guest offset; R8 = host address
  const u8* interpret = nullptr;   // called: R8 = InterpretSite*
  const u8* host_fault = nullptr;  // jumped to by the signal handler: guest registers as in a block
};

// Writes them at the writer's present place; `to_executable` is the distance from a writable to its executable address.
Thunks write_thunks(CodeWriter& w, std::ptrdiff_t to_executable);

}  // namespace bulkhead::engine::dbt
