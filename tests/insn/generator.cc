#include "tests/insn/generator.h"

#include <algorithm>

#include "base/bits.h"
#include "engine/dbt/front/insn.h"
#include "engine/dbt/interp/undefined_flags.h"
#include "tests/insn/encoding.h"
#include "tests/insn/values.h"

namespace bulkhead::insn {
namespace {

constexpr u8 kRcx = 1, kRdx = 2, kRsp = 4, kRbp = 5, kRsi = 6, kRdi = 7, kNone = 0xff;
constexpr u64 kZone = 0x8000;  // around the sandbox, all unmapped

u8 gpr_number(ZydisRegister reg) {
  const ZydisRegister wide = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
  return wide >= ZYDIS_REGISTER_RAX && wide <= ZYDIS_REGISTER_R15 ? static_cast<u8>(wide - ZYDIS_REGISTER_RAX) : kNone;
}

bool is_vector(ZydisRegister reg) {
  const ZydisRegisterClass kind = ZydisRegisterGetClass(reg);
  return kind == ZYDIS_REGCLASS_XMM || kind == ZYDIS_REGCLASS_YMM || kind == ZYDIS_REGCLASS_ZMM;
}

bool is_bit_test(ZydisMnemonic mnemonic) {
  return mnemonic == ZYDIS_MNEMONIC_BT || mnemonic == ZYDIS_MNEMONIC_BTS || mnemonic == ZYDIS_MNEMONIC_BTR ||
         mnemonic == ZYDIS_MNEMONIC_BTC;
}

// Its faults for bytes that the mask disables depend on the CPU.
bool is_mask_move(ZydisMnemonic mnemonic) {
  return mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
         mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU;
}

bool replaces_all_vectors(ZydisMnemonic mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_VZEROALL:
    case ZYDIS_MNEMONIC_VZEROUPPER:
      return true;
    default:
      return false;
  }
}

// Builds one case instruction by instruction. Memory operands must hit the sandbox, or what is certainly not mapped,
// when they are executed: a register that an address depends on is "pinned" at its initial value, and one that an
// earlier instruction may have changed can't be used in an address any more.
class Builder {
 public:
  Builder(Random& random, Case& out) : random_{random}, out_{out} {}

  void build() {
    random_registers(random_, out_.before);
    const unsigned wanted = random_.chance(60) ? 1 : 2 + random_.below(Case::kMaxInsns - 1);
    while (out_.insn_count < wanted && !st_.last) {
      unsigned attempts = 0;
      while (!add_instruction()) {
        if (++attempts > 200) return finish();  // too much is pinned
      }
    }
    finish();
  }

 private:
  bool add_instruction() {
    Candidate candidate;
    random_instruction(random_, candidate);
    const u8 length = candidate.insn.length;
    if (out_.length + length > Case::kMaxCode) return out_.insn_count > 0 ? (st_.last = true) : false;
    const State before = st_;
    const auto gpr = out_.before.gpr;
    const u8 patches = out_.patch_count;
    engine::dbt::Insn insn;
    if (!arrange(candidate) || !check_flags(candidate, insn)) {
      st_ = before;
      out_.before.gpr = gpr;
      out_.patch_count = patches;
      return false;
    }
    append(candidate, insn);
    return true;
  }

  // Gives every memory operand an address and every dangerous register a value. False: choose another instruction.
  bool arrange(Candidate& c) {
    if (c.insn.mnemonic == ZYDIS_MNEMONIC_POPF || c.insn.mnemonic == ZYDIS_MNEMONIC_POPFQ) {
      if (out_.insn_count > 0) return false;
    }
    if (!arrange_branch(c)) return false;
    if ((c.insn.mnemonic == ZYDIS_MNEMONIC_ENTER || c.insn.mnemonic == ZYDIS_MNEMONIC_LEAVE) &&
        !pin_address(kRbp, target(8, 8)))
      return false;
    if (is_bit_test(c.insn.mnemonic) && c.operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
        c.operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER) {
      const u8 offset = gpr_number(c.operands[1].reg.value);
      if (!pin_value(offset, static_cast<u64>(static_cast<i64>(random_.below(4000)) - 2000))) return false;
      if (out_.before.gpr[offset] + 4000 > 8000) return false;  // pinned as something else
    }
    if (c.insn.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) {
      const bool huge = random_.chance(2);
      if (!pin_value(kRcx, huge ? random_integer(random_) : random_.below(40))) return false;
    }
    for (unsigned i = 0; i < c.insn.operand_count; ++i) {
      const ZydisDecodedOperand& operand = c.operands[i];
      if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY || operand.mem.type == ZYDIS_MEMOP_TYPE_AGEN) continue;
      if (!arrange_memory(c, operand)) return false;
      // Encoding may have changed; operand itself has not.
    }
    const bool divides = c.insn.mnemonic == ZYDIS_MNEMONIC_DIV || c.insn.mnemonic == ZYDIS_MNEMONIC_IDIV;
    if (divides && random_.chance(60) && !((st_.pinned | st_.written) & (1u << kRdx)))
      out_.before.gpr[kRdx] = random_.below(3);
    return true;
  }

  bool arrange_branch(Candidate& c) {
    const bool relative = c.insn.raw.imm[0].is_relative;
    const bool transfer = c.insn.meta.category == ZYDIS_CATEGORY_UNCOND_BR ||
                          c.insn.meta.category == ZYDIS_CATEGORY_COND_BR ||
                          c.insn.meta.category == ZYDIS_CATEGORY_CALL || c.insn.meta.category == ZYDIS_CATEGORY_RET;
    if (!relative && !transfer) return true;
    // With a 16-bit operand size the vendors disagree about what happens.
    if (c.insn.operand_width == 16 || (c.insn.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE)) return false;
    if (relative) {
      if (c.insn.mnemonic == ZYDIS_MNEMONIC_XBEGIN) return false;
      std::memset(&c.bytes[c.insn.raw.imm[0].offset], 0, c.insn.raw.imm[0].size / 8);
      st_.branch_seen = true;
      return true;
    }
    // RET and indirect ones go to the end of the case, so they are its end. One through memory must be alone: nothing
    // may have written there.
    const bool by_register = c.insn.operand_count_visible == 1 && c.operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER;
    if (!by_register && out_.insn_count > 0) return false;
    st_.last = true;
    st_.to_end = true;
    for (unsigned i = 0; i < c.insn.operand_count_visible; ++i) {
      const ZydisDecodedOperand& operand = c.operands[i];
      if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER || gpr_number(operand.reg.value) == kNone) continue;
      st_.target_register = gpr_number(operand.reg.value);
      if ((st_.pinned | st_.written) & (1u << st_.target_register)) return false;
      st_.pinned |= 1u << st_.target_register;
    }
    return true;
  }

  bool pin_value(u8 reg, u64 value) {
    const u32 mask = 1u << reg;
    if (st_.written & mask) return false;
    if (st_.pinned & mask) return true;  // whatever it is; the address check decides
    out_.before.gpr[reg] = value;
    st_.pinned |= mask;
    return true;
  }
  bool pin_address(u8 reg, u64 address) {
    if (!pin_value(reg, address)) return false;
    return harmless(out_.before.gpr[reg]);
  }

  static bool harmless(u64 address) {
    if (address - (kDataBase - kZone) < kDataSize + 2 * kZone) return true;
    return address + (u64{1} << 47) >= (u64{1} << 48) && address + kZone + (u64{1} << 47) >= (u64{1} << 48);
  }

  // Where an operand of `size` bytes shall lie.
  u64 target(unsigned size, unsigned alignment) {
    const u32 kind = random_.below(100);
    const u32 spread = static_cast<u32>(size);
    if (kind < 72 || spread >= 0x1000) {
      const u64 at =
          kDataBase + 64 + random_.below(static_cast<u32>(kWritableSize) - 128 - std::min<u32>(spread, 0x1800));
      return random_.chance(60) ? align_down(at, alignment) : at;
    }
    if (kind < 84) return kDataBase + 0x1000 - 1 - random_.below(spread);
    if (kind < 89) return kDataBase + kWritableSize - 1 - random_.below(spread);
    if (kind < 93) return kDataBase + kWritableSize + random_.below(static_cast<u32>(kReadOnlySize) - 64);
    if (kind < 96) return kDataBase + kDataSize - 1 - random_.below(spread);
    if (kind < 98) return kDataBase - 1 - random_.below(spread);
    if (kind < 99) return kDataBase - 0x2000 + random_.below(0x1000);
    return (u64{0x8000} << 32) + (random_.next() & 0xffffffffff);
  }

  bool arrange_memory(Candidate& c, const ZydisDecodedOperand& operand) {
    const ZydisDecodedOperandMem& mem = operand.mem;
    unsigned size = std::clamp<unsigned>(operand.size / 8, 1, 2048);
    const bool environment = c.insn.mnemonic == ZYDIS_MNEMONIC_FLDENV || c.insn.mnemonic == ZYDIS_MNEMONIC_FNSTENV;
    if (is_vector(mem.index)) {
      size = 64;
      if (!arrange_vsib(mem, c.insn.opcode & 1)) return false;
    }
    const bool hidden = operand.visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN ||
                        operand.visibility == ZYDIS_OPERAND_VISIBILITY_IMPLICIT;
    const unsigned alignment = size >= 512  ? 64
                               : size >= 64 ? 64
                               : size >= 32 ? 32
                               : size >= 16 ? 16
                               : size >= 8  ? 8
                                            : 4;
    u64 address = target(size, alignment);
    if (hidden && gpr_number(mem.base) == kRsp)
      address = align_down(kDataBase + 0x200 + random_.below(0x1c00), random_.chance(80) ? 8 : 1);
    if (is_mask_move(c.insn.mnemonic)) address = kDataBase + random_.below(0x1800);
    const u64 segment = mem.segment == ZYDIS_REGISTER_GS ? kGsBase : 0;
    if (!solve(c, operand, address, segment)) return false;
    if (size > 64 || environment) {
      if (out_.insn_count > 0 && (moving(mem.base) || moving(mem.index))) return false;
      st_.last = true;  // what it stores of the x87 pointers must not get anywhere
      out_.any_page_fault = true;
      ignore_pointers(c, address);
    }
    if (c.insn.avx.mask.reg > ZYDIS_REGISTER_K0) out_.any_page_fault = true;  // the operand's or the element's
    const bool inside = address >= kDataBase && address + 16 <= kDataBase + kWritableSize;
    if ((st_.to_end || is_mask_move(c.insn.mnemonic)) && !inside) return false;
    if (hidden && !(operand.actions & ZYDIS_OPERAND_ACTION_MASK_READ)) return true;
    patch(c, address, size);
    return true;
  }

  // By stack or string instructions, a little.
  static bool moving(ZydisRegister reg) {
    const u8 number = gpr_number(reg);
    return number == kRsp || number == kRsi || number == kRdi;
  }

  void ignore_pointers(const Candidate& c, u64 address) {
    const bool x87 = c.insn.meta.isa_set == ZYDIS_ISA_SET_X87;
    if (!x87)
      out_.ignored = {address + 6, 18, {}};
    else if (c.insn.operand_width == 16)
      out_.ignored = {address + 6, 8, {}};
    else
      out_.ignored = {address + 12, 16, {}};
  }

  // Makes base + index * scale + displacement come to `address`, or says what it came to.
  bool solve(Candidate& c, const ZydisDecodedOperand& operand, u64& address, u64 segment) {
    const ZydisDecodedOperandMem& mem = operand.mem;
    const u64 wanted = address - segment;
    const bool hidden =
        operand.encoding == ZYDIS_OPERAND_ENCODING_NONE && operand.visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT;
    if (mem.base == ZYDIS_REGISTER_RIP || mem.base == ZYDIS_REGISTER_EIP) {
      const u64 next = out_.start + out_.length + c.insn.length;
      return set_displacement(c, wanted - next) && finish_address(c, address, wanted + segment);
    }
    const u8 base = gpr_number(mem.base);
    const u8 index = is_vector(mem.index) ? kNone : gpr_number(mem.index);
    const u64 displacement = hidden ? 0 : static_cast<u64>(mem.disp.value);
    if (base == kNone && index == kNone) {
      if (is_vector(mem.index)) return set_displacement(c, wanted) && finish_address(c, address, address);
      return set_displacement(c, wanted) && finish_address(c, address, address);
    }
    if (base == kNone) {
      if (!pin_value(index, random_.below(64))) return false;
      return set_displacement(c, wanted - out_.before.gpr[index] * mem.scale) && finish_address(c, address, address);
    }
    if (c.insn.mnemonic == ZYDIS_MNEMONIC_XLAT) return pin_address(base, wanted) && finish_address(c, address, address);
    if (base == index) {
      if (!pin_value(base, (wanted - displacement) / (1u + mem.scale))) return false;
    } else {
      if (index != kNone && !pin_value(index, static_cast<u64>(static_cast<i64>(random_.below(128)) - 64)))
        return false;
      const u64 scaled = index == kNone ? 0 : out_.before.gpr[index] * mem.scale;
      if (!pin_value(base, wanted - displacement - scaled)) return false;
    }
    u64 reached = out_.before.gpr[base] + displacement + (index == kNone ? 0 : out_.before.gpr[index] * mem.scale);
    const bool stack = hidden && base == kRsp;  // not truncated by an address-size prefix
    if (c.insn.address_width == 32 && !stack) reached &= 0xffffffff;
    return finish_address(c, address, reached + segment, stack);
  }
  bool finish_address(Candidate& c, u64& address, u64 reached, bool stack = false) {
    if (c.insn.address_width == 32 && !stack && reached > 0xffffffff) return false;
    address = reached;
    return harmless(address);
  }

  bool set_displacement(Candidate& c, u64 value) {
    const unsigned size = c.insn.raw.disp.size / 8;
    if (size < 4) return false;
    if (size == 4 && static_cast<u64>(static_cast<i64>(static_cast<i32>(value))) != value) return false;
    std::memcpy(&c.bytes[c.insn.raw.disp.offset], &value, size);
    return true;
  }

  bool arrange_vsib(const ZydisDecodedOperandMem& mem, bool wide) {
    const unsigned n = static_cast<unsigned>(ZydisRegisterGetId(mem.index));
    if ((st_.vectors_written | st_.vectors_pinned) & (u64{1} << n)) return false;
    st_.vectors_pinned |= u64{1} << n;
    for (u64& lane : out_.before.zmm[n]) {
      const u64 low = static_cast<u64>(static_cast<i64>(random_.below(300)) - 150);
      const u64 high = static_cast<u64>(static_cast<i64>(random_.below(300)) - 150);
      lane = wide ? low : (low & 0xffffffff) | high << 32;
    }
    return true;
  }

  void patch(const Candidate& c, u64 address, unsigned size) {
    if (out_.patch_count == Case::kMaxPatches || address < kDataBase || address >= kDataBase + kWritableSize) return;
    // Flags that POPF takes must stay as they were made.
    const bool flags = c.insn.mnemonic == ZYDIS_MNEMONIC_POPF || c.insn.mnemonic == ZYDIS_MNEMONIC_POPFQ;
    if (st_.flags_at && !flags && address < st_.flags_at + 8 && address + 64 > st_.flags_at) return;
    if (flags) st_.flags_at = address;
    Patch& to = out_.patches[out_.patch_count++];
    to.address = address;
    to.size = static_cast<u8>(std::min<u64>({size, 64, kDataBase + kWritableSize - address}));
    for (unsigned i = 0; i < 64; i += 8) {
      u64 lane = random_lane(random_);
      if (flags) lane &= kComparedFlags;
      std::memcpy(to.bytes.data() + i, &lane, 8);
    }
    if (st_.to_end && st_.end_patch == kNone) st_.end_patch = static_cast<u8>(out_.patch_count - 1);
  }

  // A flag that was left undefined must not decide anything.
  bool check_flags(Candidate& c, engine::dbt::Insn& insn) {
    if (!decode_candidate(c)) return false;
    if (engine::dbt::decode(engine::dbt::CodeSize::k64, {c.bytes.data(), 15}, insn) != engine::dbt::DecodeStatus::kOk)
      return true;
    return (insn.flags_read & st_.undefined) == 0;
  }

  void append(const Candidate& c, const engine::dbt::Insn& insn) {
    std::copy_n(c.bytes.begin(), c.insn.length, out_.code.begin() + out_.length);
    out_.insn_offset[out_.insn_count++] = out_.length;
    if (c.insn.raw.imm[0].is_relative) note_branch(c);
    out_.length = static_cast<u8>(out_.length + c.insn.length);
    const u32 undefined = engine::dbt::undefined_flags(insn);
    if (!st_.branch_seen) st_.undefined &= ~u64{insn.flags_written};
    st_.undefined |= undefined;
    st_.undefined_anywhere |= undefined;
    if (replaces_all_vectors(c.insn.mnemonic)) st_.vectors_written = ~u64{0};
    for (unsigned i = 0; i < c.insn.operand_count; ++i) note_written(c, c.operands[i]);
  }

  void note_branch(const Candidate& c) {
    st_.displacement_at = static_cast<u8>(out_.length + c.insn.raw.imm[0].offset);
    st_.branch_after = out_.insn_count;
  }

  void note_written(const Candidate& c, const ZydisDecodedOperand& operand) {
    if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER || !(operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)) return;
    if (is_vector(operand.reg.value)) st_.vectors_written |= u64{1} << ZydisRegisterGetId(operand.reg.value);
    const u8 reg = gpr_number(operand.reg.value);
    if (reg == kNone) return;
    // Stack and string instructions only move their pointers a little.
    const bool implied = operand.visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN;
    const bool rep = c.insn.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE);
    const bool moves = implied && (reg == kRsp || reg == kRsi || reg == kRdi) &&
                       c.insn.mnemonic != ZYDIS_MNEMONIC_ENTER && c.insn.mnemonic != ZYDIS_MNEMONIC_LEAVE && !rep;
    if (!moves) st_.written |= 1u << reg;
  }

  void finish() {
    out_.undefined_flags = st_.undefined;
    out_.undefined_anywhere = st_.undefined_anywhere;
    if (st_.displacement_at) {  // to the start of a later instruction, or to the end
      const u8 skip = static_cast<u8>(st_.branch_after + random_.below(out_.insn_count - st_.branch_after + 1u));
      const u8 to = skip >= out_.insn_count ? out_.length : out_.insn_offset[skip];
      const u8 from = st_.branch_after >= out_.insn_count ? out_.length : out_.insn_offset[st_.branch_after];
      out_.code[st_.displacement_at] = static_cast<u8>(to - from);
    }
    if (!st_.to_end) return;
    const u64 end = out_.end();
    if (st_.target_register != kNone)
      out_.before.gpr[st_.target_register] = end;
    else if (st_.end_patch != kNone)
      std::memcpy(out_.patches[st_.end_patch].bytes.data(), &end, 8);
  }

  struct State {
    u32 pinned = 0, written = 0;  // general registers, one bit each
    u64 vectors_pinned = 0, vectors_written = 0;
    u64 undefined = 0, undefined_anywhere = 0;  // flags
    bool last = false;                          // nothing can follow
    bool to_end = false;                        // the last one jumps to where a register or memory says
    bool branch_seen = false;
    u8 target_register = kNone, end_patch = kNone;
    u64 flags_at = 0;        // what POPF takes
    u8 displacement_at = 0;  // of the last relative branch; 0: none (an opcode comes first)
    u8 branch_after = 0;     // number of the instruction behind it
  };

  Random& random_;
  Case& out_;
  State st_;
};

}  // namespace

void generate_case(u64 seed, u64 index, u64 address, Case& out) {
  out = Case{};
  out.seed = seed;
  out.index = index;
  out.start = address;
  Random random{seed * 0x9e3779b97f4a7c15 + index};
  Builder{random, out}.build();
}

}  // namespace bulkhead::insn
