#include "tests/insn/values.h"

namespace bulkhead::insn {
namespace {

constexpr u32 kFloats[] = {0x00000000, 0x80000000, 0x3f800000, 0xbf800000, 0x00000001, 0x807fffff,
                           0x00800000, 0x7f7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 0x7fa00001,
                           0xffc12345, 0x4f000000, 0xcf000000, 0x40490fdb};
constexpr u64 kDoubles[] = {0x0000000000000000, 0x8000000000000000, 0x3ff0000000000000, 0xbff0000000000000,
                            0x0000000000000001, 0x800fffffffffffff, 0x0010000000000000, 0x7fefffffffffffff,
                            0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000000000, 0x7ff4000000000001,
                            0x41e0000000000000, 0xc3e0000000000000, 0x43f0000000000000, 0x400921fb54442d18};
constexpr u16 kExtendedExponents[] = {0x0000, 0x8000, 0x3fff, 0xbfff, 0x7fff, 0xffff, 0x0001, 0x403e, 0x7ffe};
constexpr u64 kExtendedMantissas[] = {0x8000000000000000, 0x0000000000000000, 0xc000000000000000, 0xffffffffffffffff,
                                      0x0000000000000001, 0xa000000000000001, 0x7fffffffffffffff};

u64 random_float(Random& random) {
  if (random.chance(50)) return kFloats[random.below(16)];
  // Near one, so that sums and products stay finite.
  return (random.next() & 0x807fffff) | (0x3c + random.below(8)) << 24;
}
u64 random_double(Random& random) {
  if (random.chance(50)) return kDoubles[random.below(16)];
  return (random.next() & 0x800fffffffffffff) | u64{0x3f8 + random.below(16)} << 52;
}

void random_x87(Random& random, Registers& out) {
  out.fcw = static_cast<u16>(0x37f | random.below(4) << 10);
  if (random.chance(30)) out.fcw = static_cast<u16>((out.fcw & ~0x300) | (random.chance(50) ? 0 : 0x200));
  if (random.chance(15)) out.fcw = static_cast<u16>(out.fcw & ~random.below(64));
  out.fsw = static_cast<u16>(random.below(8) << 11 | (random.below(16) & 7) << 8 | random.below(2) << 14);
  if (random.chance(20)) out.fsw |= static_cast<u16>(random.below(64) & out.fcw);
  out.ftw = static_cast<u8>(random.chance(60) ? 0xff : random.chance(30) ? 0 : random.below(256));
  for (auto& st : out.st) {
    const bool special = random.chance(50);
    const u64 mantissa = special ? kExtendedMantissas[random.below(7)] : random.next() | u64{1} << 63;
    const u16 exponent = special ? kExtendedExponents[random.below(9)] : static_cast<u16>(0x3ff0 + random.below(32));
    std::memcpy(st.data(), &mantissa, 8);
    std::memcpy(st.data() + 8, &exponent, 2);
  }
}

}  // namespace

u64 random_integer(Random& random) {
  const u64 value = random.next();
  switch (random.below(8)) {
    case 0:
      return value & 0xff;
    case 1:
      return 0 - (value & 0xff);
    case 2:
      return u64{1} << (value & 63);
    case 3:
      return (u64{1} << (value & 63)) - 1;
    case 4:
      return value & 0xffffffff;
    case 5:
      return static_cast<u64>(static_cast<i64>(static_cast<i32>(value)));
    default:
      return value;
  }
}

u64 random_lane(Random& random) {
  switch (random.below(5)) {
    case 0:
      return random_integer(random);
    case 1:
      return random_double(random);
    case 2:
      return random_float(random) | random_float(random) << 32;
    default:
      return random.next();
  }
}

void random_registers(Random& random, Registers& out) {
  out = Registers{};
  for (u64& gpr : out.gpr) gpr = random_integer(random);
  out.flags = (random.next() & (kComparedFlags & ~u64{0x400})) | (random.chance(10) ? 0x400 : 0) | 0x202;
  out.mxcsr = 0x1f80 | random.below(4) << 13;
  if (random.chance(15)) out.mxcsr |= 0x8000;
  if (random.chance(15)) out.mxcsr |= 0x0040;
  if (random.chance(8)) out.mxcsr &= ~(random.below(64) << 7);
  if (random.chance(20)) out.mxcsr |= random.below(64) & (out.mxcsr >> 7);
  random_x87(random, out);
  for (u64& k : out.k) k = random.chance(25) ? random_integer(random) : random.next();
  const u32 style = random.below(4);
  for (auto& zmm : out.zmm)
    for (u64& lane : zmm)
      lane = style == 0   ? random_double(random)
             : style == 1 ? random_float(random) | random_float(random) << 32
                          : random_lane(random);
}

}  // namespace bulkhead::insn
