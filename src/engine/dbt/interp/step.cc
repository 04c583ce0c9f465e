// Fetch and decode, through a cache of decoded instructions.
#include <new>

#include "engine/dbt/interp/end.h"
#include "engine/dbt/interp/interp.h"

namespace bulkhead::engine::dbt {
namespace {

inline constexpr unsigned kEntries = 1024;

// Decoding is a function of the bytes and the mode alone, and both are compared in full; where the bytes lie only picks
// the entry. So the cache is right for every vCPU and every mapping, and needs no invalidation. All zero is an empty
// entry, so that a thread that never interprets never touches its copy.
struct Entry {
  u64 low, high;  // the instruction's bytes, zero beyond its length
  u8 length;      // 0: empty
  u8 mode;
  alignas(Insn) std::byte storage[sizeof(Insn)];

  Insn* insn() { return std::launder(reinterpret_cast<Insn*>(storage)); }
};
static_assert(std::is_trivially_destructible_v<Insn>);
thread_local Entry cache[kEntries];

struct Bytes {
  alignas(8) u8 at[16]{};  // at[15] stays 0
  u64 low() const { return word(0); }
  u64 high() const { return word(8); }

 private:
  u64 word(unsigned from) const {
    u64 value = 0;
    for (unsigned i = 8; i-- > 0;) value = value << 8 | at[from + i];
    return value;
  }
};

u64 low_mask(unsigned length) { return length >= 8 ? ~u64{0} : mask_for_size(length); }
u64 high_mask(unsigned length) { return length <= 8 ? 0 : mask_for_size(length - 8); }

void decode_into(Cpu& cpu, Entry& entry, CodeSize mode, u64 linear, const Bytes& bytes, unsigned have) {
  entry.length = 0;
  cpu.spill_fpu();
  Insn* insn = new (entry.storage) Insn;
  switch (decode(mode, {bytes.at, have}, *insn)) {
    case DecodeStatus::kOk:
      break;
    case DecodeStatus::kNeedMoreBytes:
      cpu.fetch_fault(linear + have);
    case DecodeStatus::kTooLong:
      cpu.raise(kGp, 0);
    case DecodeStatus::kInvalid:
      cpu.raise(kUd);
  }
  entry.length = insn->length;
  entry.mode = static_cast<u8>(mode);
  entry.low = bytes.low() & low_mask(entry.length);
  entry.high = bytes.high() & high_mask(entry.length);
}

const Insn& fetch_instruction(Cpu& cpu) {
  const CodeSize mode = cpu.code_size();
  u64 linear = cpu.s.rip;
  if (mode != CodeSize::k64) linear = (linear + cpu.s.seg[kCs].base) & 0xffffffff;
  Bytes bytes;
  const unsigned have = cpu.fetch(linear, bytes.at);
  Entry& entry = cache[(linear ^ (linear >> 10) ^ static_cast<u64>(mode) << 6) % kEntries];
  const unsigned length = entry.length;
  const bool hit = length != 0 && length <= have && entry.mode == static_cast<u8>(mode) &&
                   entry.low == (bytes.low() & low_mask(length)) && entry.high == (bytes.high() & high_mask(length));
  if (!hit) decode_into(cpu, entry, mode, linear, bytes, have);
  if ((linear & 0xfff) + entry.length > kPageSize)
    cpu.translate_code((linear & ~u64{0xfff}) + kPageSize);  // sets A there
  return *entry.insn();
}

}  // namespace

StepResult step(Cpu& cpu) {
  BH_GUARD(cpu) { return execute_guarded(cpu, fetch_instruction(cpu)); }
  return end_abandoned(cpu);
}

}  // namespace bulkhead::engine::dbt
