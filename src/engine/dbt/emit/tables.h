// The translator's tables behind the CpuState: reached from translated code as [rsp + offset].
#pragma once
#include <cstddef>

#include "engine/dbt/cpu/cpu_state.h"
#include "engine/dbt/cpu/vcpu_arena.h"

namespace bulkhead::engine::dbt {

class Cpu;
class Translator;

// Where an indirect jump finds its target without leaving translated code: a direct-mapped cache per TLB space.
struct JumpEntry {
  u64 rip;
  const u8* code;
};
inline constexpr unsigned kJumpBits = 14;
inline constexpr unsigned kJumpEntries = 1u << kJumpBits;
inline constexpr u64 kNoRip = 0x8000'0000'0000'0000;  // not canonical

// The upper bits of a product: three instructions where translated code does it.
inline constexpr u32 kJumpFactor = 0x9e3779b1;
inline unsigned jump_index(u64 rip) { return static_cast<u32>(rip) * kJumpFactor >> (32 - kJumpBits); }

// What CpuState::jit_scratch holds, by index.
enum JitScratch : unsigned {
  kScratchLink = 0,    // the Link of an exit kLink
  kScratchMiss = 1,    // what missed: MissBits
  kScratchValue = 2,   // a value on its way to the stack; the host's flags at a host fault
  kScratchTarget = 3,  // of an indirect call
  kScratchWindow = 4,  // host address of the stack window (emit/window.h)
};
constexpr u32 scratch_offset(JitScratch which) {
  return static_cast<u32>(offsetof(CpuState, jit_scratch) + sizeof(u64) * which);
}

inline constexpr u32 kKeyNoWindows = 1u << 8;  // of a block's key: every access to the stack looks its page up

// What an access that misses the TLB says of itself; the guest offset within the block stands above kMissOffsetShift.
enum MissBits : u32 { kMissSize = 0xff, kMissWrite = 0x100, kMissWindow = 0x200 };
inline constexpr unsigned kMissOffsetShift = 16;

// Why translated code came back.
enum class JitExit : u32 {
  kLookup = 0,  // s.rip is set: find or make its block
  kLink = 1,    // kScratchLink is the Link that wants its target
  kPoll = 2,    // s.pending was not 0; s.rip is set
  kMiss = 3,    // an access that the interpreter must do: jit_exit_rip in the block, kScratchMiss says which
  kHostFault =
      4,  // the host CPU refused the instruction at jit_exit_rip: the interpreter raises what the guest shall see
  kVectors = 5,  // the block at s.rip needs the vector state in the host's registers
  kGoOn = 6,     // (not seen outside) the block at s.rip, whose code is in kScratchTarget, is next
  kStep = 16,    // + StepResult: the interpreter was called and the block cannot go on
};

struct JitTables {
  Cpu* cpu;
  Translator* translator;
  void* (*miss)(Cpu*, u64 linear, u64 what);
  u32 (*interpret)(Cpu*, void* site);
  alignas(64) JumpEntry jump[kTlbSpaces][kJumpEntries];
};
static_assert(sizeof(JitTables) <= VcpuArena::kTablesSize);

inline JitTables& jit_tables(CpuState& state) { return *reinterpret_cast<JitTables*>(arena_tables(state)); }

// Offsets from RSP while translated code runs.
inline constexpr u32 kTablesOffset = sizeof(CpuState);
inline constexpr u32 state_offset_of_gpr(unsigned reg) { return 8 * reg; }

}  // namespace bulkhead::engine::dbt
