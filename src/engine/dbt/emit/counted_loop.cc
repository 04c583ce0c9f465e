#include "engine/dbt/emit/counted_loop.h"

#include <Zydis/Zydis.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "engine/dbt/cpu/flags.h"
#include "engine/dbt/emit/classify.h"

namespace bulkhead::engine::dbt {
namespace {

using i128 = __int128;

constexpr unsigned kMaxInstructions = 24;
constexpr u64 kMinRounds = 32;  // fewer are executed sooner than this is found out
constexpr unsigned kMinCounters = 2;
constexpr u64 kForever = u64{1} << 62;
constexpr u8 kConstant = 16;
constexpr u32 kAllFlags = static_cast<u32>(kArithmeticFlags);

// What a register holds: in round k, what `base` held when round k began, plus `offset`; or a constant.
struct Value {
  u8 base = kConstant;
  u64 offset = 0;
  u64 now = 0;  // in this round
};

enum class Relation : u8 {
  kLess,
  kLessOrEqual,
  kEqual,
  kNotEqual,
  kGreater,
  kGreaterOrEqual
};  // opposites face each other

// What must be so in a round for it to go the same way.
struct Guard {
  Value a, b;
  unsigned width;  // bits
  bool is_signed;
  Relation relation;
};

struct FlagSource {
  enum class Kind : u8 { kNone, kCompare, kResult } kind = Kind::kNone;
  Value a, b;
  unsigned width = 64;
};

i128 view(u64 value, unsigned width, bool is_signed) {
  if (!is_signed) return width == 32 ? static_cast<u32>(value) : value;
  return width == 32 ? i128{static_cast<i32>(value)} : i128{static_cast<i64>(value)};
}

bool holds(Relation relation, i128 difference) {
  switch (relation) {
    case Relation::kLess:
      return difference < 0;
    case Relation::kLessOrEqual:
      return difference <= 0;
    case Relation::kEqual:
      return difference == 0;
    case Relation::kNotEqual:
      return difference != 0;
    case Relation::kGreaterOrEqual:
      return difference >= 0;
    default:
      return difference > 0;
  }
}

Relation opposite(Relation relation) { return static_cast<Relation>(5 - static_cast<unsigned>(relation)); }
static_assert(static_cast<unsigned>(Relation::kLessOrEqual) + static_cast<unsigned>(Relation::kGreater) == 5);

u64 rounds(i128 room, i128 step) { return static_cast<u64>(std::min<i128>(room / step, kForever)); }

// The last round until which `difference + k * step` holds the relation, which it does for k = 0.
u64 rounds_of_relation(Relation relation, i128 difference, i128 step) {
  if (step == 0) return kForever;
  switch (relation) {
    case Relation::kLess:
      return step < 0 ? kForever : rounds(-difference - 1, step);
    case Relation::kLessOrEqual:
      return step < 0 ? kForever : rounds(-difference, step);
    case Relation::kGreater:
      return step > 0 ? kForever : rounds(difference - 1, -step);
    case Relation::kGreaterOrEqual:
      return step > 0 ? kForever : rounds(difference, -step);
    case Relation::kEqual:
      return 0;
    default: {
      const bool approaches = (difference < 0) == (step > 0);
      return approaches && difference % step == 0 ? rounds(-difference, step) - 1 : kForever;
    }
  }
}

// The last round until which a value does not wrap around.
u64 rounds_in_range(i128 value, i128 step, unsigned width, bool is_signed) {
  if (step == 0) return kForever;
  const i128 span = i128{1} << width, low = is_signed ? -(span / 2) : 0, high = low + span - 1;
  return step > 0 ? rounds(high - value, step) : rounds(value - low, -step);
}

class Tracer {
 public:
  Tracer(std::span<const u8> page, u64 page_rip, u64 head, std::span<const u64, 16> gpr)
      : page_{page}, page_rip_{page_rip}, head_{head}, start_{gpr} {
    for (u8 i = 0; i < 16; ++i) registers_[i] = {i, 0, gpr[i]};
  }

  bool follow() {
    for (unsigned i = 0; i < kMaxInstructions; ++i) {
      if (!execute()) return false;
      if (rip_ == head_) return !guards_.empty();
    }
    return false;
  }

  std::optional<LoopSkip> skip() const {
    std::array<i128, 17> steps{};
    if (!find_steps(steps)) return {};
    u64 last = kForever;
    for (const Guard& guard : guards_) last = std::min(last, rounds_of(guard, steps));
    for (const Guard& value : values_) last = std::min(last, rounds_of(value, steps));
    if (last < kMinRounds || last == kForever) return {};
    LoopSkip skip{.rounds = last};
    for (u8 i = 0; i < 16; ++i) skip.gpr[i] = start_[i] + last * static_cast<u64>(steps[i]);
    return skip;
  }

 private:
  bool execute() {
    if (rip_ < page_rip_ || rip_ - page_rip_ >= page_.size()) return false;
    const std::span<const u8> rest = page_.subspan(rip_ - page_rip_);
    Insn insn;
    if (decode(CodeSize::k64, rest.first(std::min<std::size_t>(rest.size(), 15)), insn) != DecodeStatus::kOk)
      return false;
    const InsnKind kind = classify(insn);
    const u64 next = rip_ + insn.length;
    rip_ = next;
    if (kind == InsnKind::kNothing) return true;
    if (kind == InsnKind::kJump) {
      rip_ = next + insn.imm;
      return true;
    }
    if (kind == InsnKind::kJcc) return branch(insn, next);
    note_flags(flag_effect(insn, kind));
    if (kind == InsnKind::kLea) return lea(insn);
    return kind == InsnKind::kNative && !insn.lock && insn.rep == RepKind::kNone && compute(insn);
  }

  // At the head flags are as they were before the rounds that are skipped, so what they are must not matter there:
  // those that the loop sets, it sets before the way can part.
  void note_flags(const FlagEffect& effect) {
    written_ |= effect.writes;
    if (guards_.empty()) killed_ |= effect.kills;
  }
  bool flags_are_safe() const { return (written_ & kAllFlags & ~killed_) == 0; }

  static std::optional<unsigned> width_of(const Operand& operand) {
    if (operand.kind != OperandKind::kRegister) return {};
    if (operand.reg_class == RegisterClass::kGpr64) return 64;
    if (operand.reg_class == RegisterClass::kGpr32) return 32;
    return {};
  }

  Value constant(u64 value) const { return {kConstant, value, value}; }
  std::optional<Value> read(const Insn& insn, unsigned index, unsigned width) const {
    const Operand& operand = insn.operands[index];
    if (operand.kind == OperandKind::kImmediate) return constant(width == 32 ? static_cast<u32>(insn.imm) : insn.imm);
    if (width_of(operand) != width) return {};
    const Value& value = registers_[operand.reg];
    if (width == 32 && value.now >> 32 != 0) return {};  // half of it would have to be a value of its own
    return value;
  }
  bool write(const Insn& insn, Value value, unsigned width) {
    if (width == 32 && value.base == kConstant) value.offset = value.now = static_cast<u32>(value.now);
    if (width == 32 && value.now >> 32 != 0) return false;
    registers_[insn.operands[0].reg] = value;
    values_.push_back({value, constant(0), width, false, Relation::kGreaterOrEqual});
    return true;
  }

  bool compute(const Insn& insn) {
    if (insn.operand_count < 1) return false;
    const auto width = width_of(insn.operands[0]);
    if (!width) return false;
    const bool two = insn.operand_count >= 2 && !insn.operands[1].hidden;
    const bool same = two && width_of(insn.operands[1]) == width && insn.operands[1].reg == insn.operands[0].reg;
    if (insn.mnemonic == ZYDIS_MNEMONIC_XOR && same) {
      flags_ = {FlagSource::Kind::kResult, constant(0), constant(0), *width};
      return write(insn, constant(0), *width);
    }
    const std::optional<Value> source = two ? read(insn, 1, *width) : constant(1);
    if (!source) return false;
    if (insn.mnemonic == ZYDIS_MNEMONIC_MOV) return two && write(insn, *source, *width);
    const std::optional<Value> destination = read(insn, 0, *width);
    if (!destination) return false;
    switch (insn.mnemonic) {
      case ZYDIS_MNEMONIC_CMP:
        flags_ = {FlagSource::Kind::kCompare, *destination, *source, *width};
        return two;
      case ZYDIS_MNEMONIC_TEST:
        flags_ = {FlagSource::Kind::kResult, *destination, constant(0), *width};
        return same;
      case ZYDIS_MNEMONIC_INC:
      case ZYDIS_MNEMONIC_ADD:
        return source->base == kConstant && add(insn, *destination, source->now, *width);
      case ZYDIS_MNEMONIC_DEC:
      case ZYDIS_MNEMONIC_SUB:
        return source->base == kConstant && add(insn, *destination, -source->now, *width);
      default:
        return false;
    }
  }
  bool add(const Insn& insn, const Value& value, u64 amount, unsigned width) {
    if (width == 32) amount = static_cast<u64>(i64{static_cast<i32>(amount)});
    const Value sum{value.base, value.offset + amount, value.now + amount};
    flags_ = {FlagSource::Kind::kResult, sum, constant(0), width};
    return write(insn, sum, width);
  }
  bool lea(const Insn& insn) {
    const MemoryRef& memory = insn.mem;
    if (width_of(insn.operands[0]) != 64u || insn.address_size != 8 || memory.index != kNoRegister || memory.base >= 16)
      return false;
    const Value& base = registers_[memory.base];
    const u64 amount = static_cast<u64>(memory.disp);
    return write(insn, {base.base, base.offset + amount, base.now + amount}, 64);
  }

  bool branch(const Insn& insn, u64 next) {
    const unsigned condition = insn.opcode & 15;
    struct Meaning {
      Relation relation;
      bool is_signed, for_result, for_compare;
    };
    std::optional<Meaning> meaning;
    switch (condition & 14) {
      case 2:
        meaning = {Relation::kLess, false, false, true};
        break;
      case 4:
        meaning = {Relation::kEqual, false, true, true};
        break;
      case 6:
        meaning = {Relation::kLessOrEqual, false, false, true};
        break;
      case 8:
        meaning = {Relation::kLess, true, true, false};
        break;
      case 12:
        meaning = {Relation::kLess, true, false, true};
        break;
      case 14:
        meaning = {Relation::kLessOrEqual, true, false, true};
        break;
      default:
        break;
    }
    if (!meaning || flags_.kind == FlagSource::Kind::kNone) return false;
    if (flags_.kind == FlagSource::Kind::kResult ? !meaning->for_result : !meaning->for_compare) return false;
    Guard guard{flags_.a, flags_.b, flags_.width, meaning->is_signed, meaning->relation};
    if ((condition & 1) != 0) guard.relation = opposite(guard.relation);
    const bool taken = holds(guard.relation, difference(guard));
    if (!taken) guard.relation = opposite(guard.relation);
    guards_.push_back(guard);
    if (taken) rip_ = next + insn.imm;
    return true;
  }

  static i128 difference(const Guard& guard) {
    return view(guard.a.now, guard.width, guard.is_signed) - view(guard.b.now, guard.width, guard.is_signed);
  }

  // By how much each register changes in a round: a constant, and none for those that others are made from.
  bool find_steps(std::array<i128, 17>& steps) const {
    unsigned counters = 0;
    for (u8 i = 0; i < 16; ++i) {
      const Value& value = registers_[i];
      if (value.base == i)
        steps[i] = static_cast<i64>(value.offset);
      else if (value.now != start_[i])
        return false;
      counters += steps[i] != 0;
    }
    for (u8 i = 0; i < 16; ++i)
      if (registers_[i].base != i && steps[registers_[i].base] != 0) return false;
    return counters >= kMinCounters && flags_are_safe();
  }

  static u64 rounds_of(const Guard& guard, const std::array<i128, 17>& steps) {
    const i128 step_a = steps[guard.a.base], step_b = steps[guard.b.base];
    const i128 a = view(guard.a.now, guard.width, guard.is_signed), b = view(guard.b.now, guard.width, guard.is_signed);
    return std::min({rounds_in_range(a, step_a, guard.width, guard.is_signed),
                     rounds_in_range(b, step_b, guard.width, guard.is_signed),
                     rounds_of_relation(guard.relation, a - b, step_a - step_b)});
  }

  const std::span<const u8> page_;
  const u64 page_rip_, head_;
  u64 rip_ = head_;
  const std::span<const u64, 16> start_;
  std::array<Value, 16> registers_;
  FlagSource flags_;
  std::vector<Guard> guards_, values_;
  u32 written_ = 0, killed_ = 0;
};

}  // namespace

std::optional<LoopSkip> skip_counted_loop(std::span<const u8> page, u64 page_rip, u64 head,
                                          std::span<const u64, 16> gpr) {
  Tracer tracer{page, page_rip, head, gpr};
  if (!tracer.follow()) return {};
  return tracer.skip();
}

}  // namespace bulkhead::engine::dbt
