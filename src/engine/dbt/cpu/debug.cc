// Debug registers, breakpoints and single-step [SDM-3B §18.2, §18.3].
#include "engine/dbt/cpu/cpu.h"

namespace bulkhead::engine::dbt {
namespace {

constexpr u64 kDr6Fixed = 0xffff0ff0, kDr6Bd = 1u << 13, kDr6Bs = 1u << 14;
constexpr u64 kDr7Fixed = 0x400, kDr7Gd = 1u << 13, kDr7Defined = 0xffff23ff;
enum Kind : unsigned { kOnExecute = 0, kOnWrite = 1, kOnPort = 2, kOnReadWrite = 3 };

bool enabled(u64 dr7, unsigned i) { return bits(dr7, 2 * i + 1, 2 * i) != 0; }
unsigned kind(u64 dr7, unsigned i) { return static_cast<unsigned>(bits(dr7, 17 + 4 * i, 16 + 4 * i)); }
u64 length(u64 dr7, unsigned i) {
  constexpr u8 kLengths[] = {1, 2, 8, 4};
  return kLengths[bits(dr7, 19 + 4 * i, 18 + 4 * i)];
}
bool overlaps(u64 dr7, u64 breakpoint, unsigned i, u64 at, u64 size) {
  const u64 start = breakpoint & ~(length(dr7, i) - 1);
  return at - start < length(dr7, i) || start - at < size;
}

}  // namespace

// DR4 and DR5 are other names of DR6 and DR7, unless CR4.DE is set. General detect refuses every access.
unsigned Cpu::accessible_dr(unsigned dr) {
  if ((dr & ~1u) == 4) {
    if (s.cr4 & kCr4De) raise(kUd);
    dr += 2;
  }
  if (s.dr[7] & kDr7Gd) {
    fault = {kDb, false, 0, kDr6Bd};
    abandon(Escape::kFault);
  }
  return dr;
}

u64 Cpu::read_dr(unsigned dr) {
  dr = accessible_dr(dr);
  if (dr == 6) return s.dr[6] | kDr6Fixed;
  if (dr == 7) return s.dr[7] | kDr7Fixed;
  return s.dr[dr];
}

void Cpu::write_dr(unsigned dr, u64 value) {
  dr = accessible_dr(dr);
  if (dr >= 6 && (value >> 32) != 0) raise(kGp, 0);
  if (dr == 6) {
    s.dr[6] = (value & 0xe00f) | kDr6Fixed;
    return;
  }
  s.dr[dr] = dr == 7 ? (value & kDr7Defined) | kDr7Fixed : value;
  const bool had_data_breakpoints = data_breakpoints_;
  mode_changed();
  if (data_breakpoints_ || had_data_breakpoints) flush_tlb(true);  // their pages must have no tags
}

bool Cpu::on_data_breakpoint_page(u64 linear) const {
  for (unsigned i = 0; i < 4; ++i)
    if (enabled(s.dr[7], i) && kind(s.dr[7], i) != kOnExecute && ((s.dr[i] ^ linear) & ~u64{0xfff}) == 0) return true;
  return false;
}

void Cpu::note_data_access(u64 linear, unsigned size, Access access) {
  if (!data_breakpoints_) return;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned on = kind(s.dr[7], i);
    if (!enabled(s.dr[7], i) || !(on == kOnReadWrite || (on == kOnWrite && access == Access::kWrite))) continue;
    if (overlaps(s.dr[7], s.dr[i], i, linear, size)) data_breakpoints_hit_ |= 1u << i;
  }
}

void Cpu::note_port_access(u16 port, unsigned size) {
  if (!data_breakpoints_ || !(s.cr4 & kCr4De)) return;
  for (unsigned i = 0; i < 4; ++i)
    if (enabled(s.dr[7], i) && kind(s.dr[7], i) == kOnPort && overlaps(s.dr[7], s.dr[i], i, port, size))
      data_breakpoints_hit_ |= 1u << i;
}

void Cpu::check_instruction_breakpoint() {
  step_override_ = -1;
  if (s.rflags & kRf) return;
  const u64 at = s.rip + (code_size() == CodeSize::k64 ? 0 : s.seg[kCs].base);
  u64 hit = 0;
  for (unsigned i = 0; i < 4; ++i)
    if (enabled(s.dr[7], i) && kind(s.dr[7], i) == kOnExecute && s.dr[i] == at) hit |= u64{1} << i;
  if (hit == 0) return;
  fault = {kDb, false, 0, hit};
  abandon(Escape::kFault);
}

std::optional<Fault> Cpu::debug_trap_after(bool tf_before) {
  if (!keep_rf_) s.rflags &= ~kRf;
  keep_rf_ = false;
  const bool step = step_override_ >= 0 ? step_override_ != 0 : tf_before;
  step_override_ = -1;
  const u64 hit = data_breakpoints_hit_ | (step ? kDr6Bs : 0);
  data_breakpoints_hit_ = 0;
  if (hit == 0) return std::nullopt;
  return Fault{kDb, false, 0, hit};
}

}  // namespace bulkhead::engine::dbt
