// MOVS STOS LODS CMPS SCAS INS OUTS, repeated or not. Each iteration is complete in itself: what faults or exits in the
// middle of a repetition finds the registers of the iterations before it. After kSlice iterations RIP stays put and
// kBranch lets the caller look at interrupts.
#include <algorithm>

#include "engine/dbt/interp/handlers.h"
#include "engine/dbt/interp/ops.h"
#include "engine/dbt/simd/simd.h"

namespace bulkhead::engine::dbt {
namespace {

inline constexpr u64 kSlice = 4096;

struct StringAccess {
  Cpu& cpu;
  const Insn& insn;
  unsigned size;
  u64 mask;   // of the address size
  bool down;  // DF

  StringAccess(Cpu& c, const Insn& i)
      : cpu{c},
        insn{i},
        size{(i.opcode & 1) ? i.operand_size : 1u},
        mask{mask_for_size(i.address_size)},
        down{(c.s.rflags & kDf) != 0} {}

  u64 offset(unsigned reg) const { return cpu.s.gpr[reg] & mask; }
  u64 source(Access access = Access::kRead) const {
    return cpu.linear(static_cast<Seg>(insn.mem.segment), offset(kRsi), size, access);
  }
  u64 dest(Access access) const { return cpu.linear(kEs, offset(kRdi), size, access); }
  void advance(unsigned reg, u64 elements) const {
    const u64 bytes = elements * size;
    write_gpr_sized(cpu.s, reg, insn.address_size, offset(reg) + (down ? 0 - bytes : bytes));
  }
  void set_count(u64 count) const { write_gpr_sized(cpu.s, kRcx, insn.address_size, count); }
};

// One iteration's end: whether the repetition is over for a reason other than the count.
enum class Turn : u8 { kGoOn, kStop };
struct Batch {
  u64 done;  // 0: could not
  Turn turn = Turn::kGoOn;
};

// `one` does one iteration and moves the index registers; `many` may do up to n at once (or none).
template <class One, class Many>
StepResult repeat(const StringAccess& a, One&& one, Many&& many) {
  Cpu& cpu = a.cpu;
  if (a.insn.rep == RepKind::kNone) {
    one();
    return next(cpu, a.insn);
  }
  const bool single = cpu.debug_active();
  u64 budget = single ? 1 : kSlice;
  while (true) {
    const u64 count = a.offset(kRcx);
    if (count == 0) return next(cpu, a.insn);
    if (budget == 0) return StepResult::kBranch;
    Batch batch = single ? Batch{0} : many(std::min(count, budget));
    if (batch.done == 0) batch = {1, one()};
    a.set_count(count - batch.done);
    cpu.instruction_done();  // the next iteration's I/O is its own
    if (batch.turn == Turn::kStop) return next(cpu, a.insn);
    budget -= batch.done;
  }
}
Batch no_batch(u64) { return {0}; }

// ---- direct access: elements of one page that lie in RAM and in the segment
struct Window {
  std::byte* host = nullptr;  // of the first element
};
Window window(const StringAccess& a, unsigned seg, unsigned reg, Access access, u64& elements) {
  Cpu& cpu = a.cpu;
  const u64 offset = a.offset(reg);
  const u64 linear = cpu.linear(static_cast<Seg>(seg), offset, a.size, access);
  const u64 in_page = linear & 0xfff;
  if (in_page + a.size > kPageSize) return {};
  u64 fit = a.down ? in_page / a.size + 1 : (kPageSize - in_page) / a.size;
  fit = std::min(fit, a.down ? offset / a.size + 1 : (a.mask - offset) / a.size);
  if (a.insn.mode != CodeSize::k64) {
    const Segment& segment = cpu.s.seg[seg];
    if ((segment.attributes & 0xc) == 4) return {};  // expand-down
    if (!a.down) fit = std::min(fit, (u64{segment.limit} - offset + 1) / a.size);
  }
  if (fit == 0) return {};
  elements = std::min(elements, fit);
  const TlbEntry& entry = cpu.s.tlb[static_cast<unsigned>(cpu.s.tlb_space)][tlb_slot(linear)];
  if ((access == Access::kWrite ? entry.write_tag : entry.read_tag) == linear - in_page)
    return {reinterpret_cast<std::byte*>(entry.addend + linear)};
  return {static_cast<std::byte*>(cpu.tlb_fill(linear, a.size, access))};
}

#define BH_REP(text, ...)                                                          \
  if (down)                                                                        \
    __asm__ volatile("std\n\trep " text "\n\tcld" : __VA_ARGS__ : "memory", "cc"); \
  else                                                                             \
    __asm__ volatile("rep " text : __VA_ARGS__ : "memory", "cc");
// The host's own string instruction keeps overlapping operands as exact as the guest's.
void host_movs(std::byte* to, std::byte* from, u64 n, unsigned size, bool down) {
  switch (size) {
    case 1:
      BH_REP("movsb", "+D"(to), "+S"(from), "+c"(n) :) break;
    case 2:
      BH_REP("movsw", "+D"(to), "+S"(from), "+c"(n) :) break;
    case 4:
      BH_REP("movsl", "+D"(to), "+S"(from), "+c"(n) :) break;
    default:
      BH_REP("movsq", "+D"(to), "+S"(from), "+c"(n) :) break;
  }
}
void host_stos(std::byte* to, u64 value, u64 n, unsigned size, bool down) {
  switch (size) {
    case 1:
      BH_REP("stosb", "+D"(to), "+c"(n) : "a"(value)) break;
    case 2:
      BH_REP("stosw", "+D"(to), "+c"(n) : "a"(value)) break;
    case 4:
      BH_REP("stosl", "+D"(to), "+c"(n) : "a"(value)) break;
    default:
      BH_REP("stosq", "+D"(to), "+c"(n) : "a"(value)) break;
  }
}

// ---- comparing
void compare(CpuState& s, u64 left, u64 right, unsigned size) {
  switch (size) {
    case 1:
      return set_compare_flags(s, static_cast<u8>(left), static_cast<u8>(right));
    case 2:
      return set_compare_flags(s, static_cast<u16>(left), static_cast<u16>(right));
    case 4:
      return set_compare_flags(s, static_cast<u32>(left), static_cast<u32>(right));
    default:
      return set_compare_flags(s, left, right);
  }
}
// REPE goes on while equal, REPNE while different.
Turn turn_after(const Insn& insn, bool equal) {
  return equal == (insn.rep == RepKind::kRep) ? Turn::kGoOn : Turn::kStop;
}

u64 element(const std::byte* at, unsigned size) {
  switch (size) {
    case 1:
      return load_host<u8>(at);
    case 2:
      return load_host<u16>(at);
    case 4:
      return load_host<u32>(at);
    default:
      return load_host<u64>(at);
  }
}

// Compares up to n pairs; `left` and `right` give the i-th of each.
template <class Left, class Right>
Batch compare_batch(const StringAccess& a, u64 n, Left&& left, Right&& right) {
  Batch batch{0};
  u64 l = 0, r = 0;
  while (batch.done < n && batch.turn == Turn::kGoOn) {
    l = left(batch.done);
    r = right(batch.done);
    ++batch.done;
    batch.turn = turn_after(a.insn, l == r);
  }
  compare(a.cpu.s, l, r, a.size);
  return batch;
}

u64 accumulator(const StringAccess& a) { return a.cpu.s.gpr[kRax] & mask_for_size(a.size); }

}  // namespace

StepResult op_movs(Cpu& cpu, const Insn& insn) {
  if (insn.opcode_map != 0) return execute_simd(cpu, insn);  // MOVSD is also an SSE2 instruction
  const StringAccess a{cpu, insn};
  const auto one = [&] {
    const u64 value = cpu.load(a.source(), a.size);
    cpu.store(a.dest(Access::kWrite), a.size, value);
    a.advance(kRsi, 1);
    a.advance(kRdi, 1);
    return Turn::kGoOn;
  };
  const auto many = [&](u64 n) {
    const Window from = window(a, insn.mem.segment, kRsi, Access::kRead, n);
    if (from.host == nullptr) return Batch{0};
    const Window to = window(a, kEs, kRdi, Access::kWrite, n);
    if (to.host == nullptr) return Batch{0};
    host_movs(to.host, from.host, n, a.size, a.down);
    a.advance(kRsi, n);
    a.advance(kRdi, n);
    return Batch{n};
  };
  return repeat(a, one, many);
}

StepResult op_stos(Cpu& cpu, const Insn& insn) {
  const StringAccess a{cpu, insn};
  const auto one = [&] {
    cpu.store(a.dest(Access::kWrite), a.size, accumulator(a));
    a.advance(kRdi, 1);
    return Turn::kGoOn;
  };
  const auto many = [&](u64 n) {
    const Window to = window(a, kEs, kRdi, Access::kWrite, n);
    if (to.host == nullptr) return Batch{0};
    host_stos(to.host, cpu.s.gpr[kRax], n, a.size, a.down);
    a.advance(kRdi, n);
    return Batch{n};
  };
  return repeat(a, one, many);
}

StepResult op_lods(Cpu& cpu, const Insn& insn) {
  const StringAccess a{cpu, insn};
  const auto one = [&] {
    write_gpr_sized(cpu.s, kRax, a.size, cpu.load(a.source(), a.size));
    a.advance(kRsi, 1);
    return Turn::kGoOn;
  };
  return repeat(a, one, no_batch);
}

StepResult op_cmps(Cpu& cpu, const Insn& insn) {
  if (insn.opcode_map != 0) return execute_simd(cpu, insn);  // CMPSD
  const StringAccess a{cpu, insn};
  const auto one = [&] {
    const u64 left = cpu.load(a.source(), a.size);
    const u64 right = cpu.load(a.dest(Access::kRead), a.size);
    compare(cpu.s, left, right, a.size);
    a.advance(kRsi, 1);
    a.advance(kRdi, 1);
    return turn_after(insn, left == right);
  };
  const auto many = [&](u64 n) {
    const Window left = window(a, insn.mem.segment, kRsi, Access::kRead, n);
    if (left.host == nullptr || a.down) return Batch{0};
    const Window right = window(a, kEs, kRdi, Access::kRead, n);
    if (right.host == nullptr) return Batch{0};
    const Batch batch = compare_batch(
        a, n, [&](u64 i) { return element(left.host + i * a.size, a.size); },
        [&](u64 i) { return element(right.host + i * a.size, a.size); });
    a.advance(kRsi, batch.done);
    a.advance(kRdi, batch.done);
    return batch;
  };
  return repeat(a, one, many);
}

StepResult op_scas(Cpu& cpu, const Insn& insn) {
  const StringAccess a{cpu, insn};
  const auto one = [&] {
    const u64 value = cpu.load(a.dest(Access::kRead), a.size);
    compare(cpu.s, accumulator(a), value, a.size);
    a.advance(kRdi, 1);
    return turn_after(insn, accumulator(a) == value);
  };
  const auto many = [&](u64 n) {
    const Window at = window(a, kEs, kRdi, Access::kRead, n);
    if (at.host == nullptr || a.down) return Batch{0};
    const Batch batch = compare_batch(
        a, n, [&](u64) { return accumulator(a); }, [&](u64 i) { return element(at.host + i * a.size, a.size); });
    a.advance(kRdi, batch.done);
    return batch;
  };
  return repeat(a, one, many);
}

// The destination is known to be writable before the port is read.
StepResult op_ins(Cpu& cpu, const Insn& insn) {
  StringAccess a{cpu, insn};
  a.size = std::min(a.size, 4u);
  cpu.check_port_permission(static_cast<u16>(cpu.s.gpr[kRdx]), a.size);
  const auto one = [&] {
    const u64 dest = a.dest(Access::kWrite);
    cpu.probe_write(dest, a.size);
    cpu.store(dest, a.size, cpu.port_in(static_cast<u16>(cpu.s.gpr[kRdx]), a.size));
    a.advance(kRdi, 1);
    return Turn::kGoOn;
  };
  return repeat(a, one, no_batch);
}

StepResult op_outs(Cpu& cpu, const Insn& insn) {
  StringAccess a{cpu, insn};
  a.size = std::min(a.size, 4u);
  cpu.check_port_permission(static_cast<u16>(cpu.s.gpr[kRdx]), a.size);
  const auto one = [&] {
    const u64 value = cpu.load(a.source(), a.size);
    cpu.port_out(static_cast<u16>(cpu.s.gpr[kRdx]), a.size, value);
    a.advance(kRsi, 1);
    return Turn::kGoOn;
  };
  return repeat(a, one, no_batch);
}

}  // namespace bulkhead::engine::dbt
