// An instruction taken apart once: what it needs, how its operands move, and its bytes rewritten to run on the host.
#pragma once
#include <array>

#include "engine/dbt/front/insn.h"

namespace bulkhead::engine::dbt {

// Which control bits enable an instruction [SDM-3A §2.5, §14.1].
enum class SimdUnit : u8 { kX87, kWait, kMmx, kSse, kVex, kEvex, kFxsave, kXsave };

enum class SimdHandler : u8 {
  kNative,    // whole memory operand (or none)
  kMasked,    // native, but elements of the memory operand that an opmask or vector mask disables must not be touched
  kByteMask,  // MASKMOVQ, MASKMOVDQU
  kGather,
  kScatter,
  kXsaveFamily,
};

// How the mask selects elements of the memory operand.
enum class MaskShape : u8 {
  kPerElement,
  kTuple,  // element j is used by every destination element i with i mod count = j (broadcasts of one or more elements)
  kCompress,  // as many elements as mask bits are set, from the first on
};

inline constexpr u8 kNoSlot = 0xff;

struct SimdPlan {
  // What it was made from.
  std::array<u8, 15> bytes{};
  u8 length = 0;
  CodeSize mode = CodeSize::k64;
  u64 serial = 0;  // differs for every plan that this thread made

  SimdUnit unit = SimdUnit::kX87;
  SimdHandler handler = SimdHandler::kNative;
  bool valid = false;  // false: #UD
  u64 features = 0;    // all needed [features.h]
  u16 mnemonic = 0;

  // Memory operand, if memory_size is not 0.
  u16 memory_size = 0;  // bytes
  bool memory_read = false, memory_write = false;

  u8 alignment = 0;                  // what a misaligned operand is tried against; 0: none
  mutable u8 alignment_checked = 0;  // 0: not known yet, 1: misaligned is #GP, 2: allowed

  // Masked and gathering forms.
  MaskShape shape = MaskShape::kPerElement;
  bool probes_all = false;   // a masked store that nevertheless faults for disabled elements
  u8 element_size = 0;       // bytes of an element in memory
  u8 element_count = 0;      // in memory
  u8 mask_bits = 0;          // how many mask bits count
  u8 mask_register = 0;      // opmask number, or vector register (VEX forms)
  bool vector_mask = false;  // the mask is the sign bits of a vector register
  u8 data_register = 0;      // gather destination, scatter source
  u8 index_size = 0;         // gather, scatter: bytes of an index
  u8 vector_size = 0;        // bytes of the destination (for zeroing)

  // General registers: which guest register RAX, RCX, RDX hold on entry and which they are written back to. kNoSlot:
  // none.
  std::array<u8, 3> gpr_in{kNoSlot, kNoSlot, kNoSlot};
  std::array<u8, 3> gpr_out{kNoSlot, kNoSlot, kNoSlot};
  bool writes_flags = false;
  bool x87_pointers = false;  // may set FIP/FDP
  bool waits = false;         // reports pending x87 exceptions first

  std::array<u8, 15> host_bytes{};
  u8 host_length = 0;
};

// Fills `plan`. Uses Zydis.
void make_plan(const Insn& insn, SimdPlan& plan);

// The same, from the thread's cache. `slot` is the cache's index, for the stub that belongs to it.
inline constexpr unsigned kPlanSlots = 2048;
struct PlanSlot {
  const SimdPlan& plan;
  unsigned slot;
};
PlanSlot find_plan(const Insn& insn);

}  // namespace bulkhead::engine::dbt
