#include "tests/insn/encoding.h"

#include "tests/insn/exclusions.h"

namespace bulkhead::insn {
namespace {

class Bytes {
 public:
  explicit Bytes(Candidate& candidate) : candidate_{candidate} {}
  void put(u32 byte) {
    if (length_ < 15) candidate_.bytes[length_++] = static_cast<u8>(byte);
  }
  void fill(Random& random) {
    const u64 low = random.next(), high = random.next();
    for (unsigned i = 0; length_ < 15; ++i) put(static_cast<u8>((i < 8 ? low >> 8 * i : high >> 8 * (i - 8))));
  }

 private:
  Candidate& candidate_;
  unsigned length_ = 0;
};

void legacy_prefixes(Random& random, Bytes& out, u32 operand_size_chance) {
  if (random.chance(4)) out.put(0x65);
  if (random.chance(4)) out.put(0x67);
  if (random.chance(operand_size_chance)) out.put(0x66);
  if (random.chance(3)) out.put(0xf0);
  if (random.chance(15)) out.put(random.chance(50) ? 0xf2 : 0xf3);
  if (random.chance(65)) out.put(0x40 | random.below(16));
}

void vex(Random& random, Bytes& out) {
  if (random.chance(3)) out.put(0x67);
  const u32 map = 1 + random.below(3);
  if (map == 1 && random.chance(50)) {
    out.put(0xc5);
    out.put(random.below(256));
  } else {
    out.put(0xc4);
    out.put(random.below(8) << 5 | map);
    out.put(random.below(256));
  }
}

void evex(Random& random, Bytes& out) {
  if (random.chance(3)) out.put(0x67);
  const u32 map = 1 + random.below(3);
  out.put(0x62);
  out.put(random.below(16) << 4 | map);
  out.put(random.below(256) | 4);
  // Vector length 3 exists only as a rounding mode.
  out.put(random.below(2) << 7 | random.below(3) << 5 | (random.chance(25) ? 0x10u : 0) | random.below(2) << 3 |
          (random.chance(50) ? random.below(8) : 0));
}

// Register-direct forms with vvvv = 1111b are a small part of what random bytes give; most opcodes want it unused or
// don't care.
void random_bytes(Random& random, Candidate& out) {
  Bytes bytes{out};
  const u32 kind = random.below(100);
  if (kind < 24) {
    legacy_prefixes(random, bytes, 20);
  } else if (kind < 44) {
    legacy_prefixes(random, bytes, 35);
    bytes.put(0x0f);
  } else if (kind < 52) {
    legacy_prefixes(random, bytes, 60);
    bytes.put(0x0f);
    bytes.put(0x38);
  } else if (kind < 57) {
    legacy_prefixes(random, bytes, 80);
    bytes.put(0x0f);
    bytes.put(0x3a);
  } else if (kind < 65) {
    if (random.chance(20)) bytes.put(0x40 | random.below(16));
    bytes.put(0xd8 | random.below(8));
  } else if (kind < 81) {
    vex(random, bytes);
  } else {
    evex(random, bytes);
  }
  bytes.fill(random);
}

}  // namespace

bool decode_candidate(Candidate& out) {
  static const ZydisDecoder decoder = [] {
    ZydisDecoder made;
    ZydisDecoderInit(&made, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisDecoderEnableMode(&made, ZYDIS_DECODER_MODE_KNC, ZYAN_FALSE);
    ZydisDecoderEnableMode(&made, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
    return made;
  }();
  if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, out.bytes.data(), 15, &out.insn, out.operands))) return false;
  // Zydis 4.0 sees a base R13D where there is none.
  const auto& raw = out.insn.raw;
  if ((out.insn.attributes & ZYDIS_ATTRIB_HAS_SIB) && raw.modrm.mod == 0 && raw.sib.base == 5)
    for (ZydisDecodedOperand& operand : out.operands)
      if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY && operand.encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
        operand.mem.base = ZYDIS_REGISTER_NONE;
  return true;
}

void random_instruction(Random& random, Candidate& out) {
  for (;;) {
    random_bytes(random, out);
    if (!decode_candidate(out) || !may_run(out.insn, out.operands)) continue;
    const Presence there = presence(out.insn);
    if (there == Presence::kThere || (there == Presence::kNowhere && random.chance(2))) return;
  }
}

}  // namespace bulkhead::insn
