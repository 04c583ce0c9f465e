// BT family, bit scans and counts, CRC32, ADCX/ADOX.
#include <bit>
#include <type_traits>

#include "engine/dbt/interp/extensions.h"
#include "engine/dbt/interp/handlers.h"
#include "engine/dbt/interp/ops.h"

namespace bulkhead::engine::dbt {
namespace {

#define BH_BIT(Name, text)                                                                                           \
  struct Name {                                                                                                      \
    template <class T>                                                                                               \
    static T run(T a, T index, HostFlags& flags) {                                                                   \
      __asm__(BH_FLAGS_IN text " %[b], %[a]" BH_FLAGS_OUT : [a] "+r"(a), "+a"(flags.image) : [b] "r"(index) : "cc"); \
      return a;                                                                                                      \
    }                                                                                                                \
  };
BH_BIT(Bt, "bt")
BH_BIT(Bts, "bts")
BH_BIT(Btr, "btr")
BH_BIT(Btc, "btc")

// A register bit index reaches beyond the memory operand: it moves the address by whole operands, signed.
template <class T>
u64 bit_address(Cpu& cpu, const Insn& insn, T index, Access access) {
  u64 offset = cpu.effective_address(insn);
  if (insn.operands[1].kind == OperandKind::kRegister) {
    constexpr int kShift = std::countr_zero(8 * sizeof(T));
    const i64 units = static_cast<std::make_signed_t<T>>(index) >> kShift;
    offset = (offset + static_cast<u64>(units) * sizeof(T)) & mask_for_size(insn.address_size);
  }
  return cpu.linear(static_cast<Seg>(insn.mem.segment), offset, sizeof(T), access);
}

template <class Op, bool kWrites>
StepResult bit_test(Cpu& cpu, const Insn& insn) {
  return by_wide_size(insn.operands[0].size, [&]<class T>(T) {
    const T index = read_operand<T>(cpu, insn, 1);
    HostFlags flags{cpu.s.rflags};
    const auto test = [&](T a) {
      flags = HostFlags{cpu.s.rflags};
      return Op::run(a, index, flags);
    };
    if (insn.operands[0].kind == OperandKind::kRegister) {
      const T result = test(read_reg<T>(cpu.s, insn.operands[0]));
      if constexpr (kWrites) write_reg<T>(cpu.s, insn.operands[0], result);  // BT leaves the upper half, too
    } else if constexpr (kWrites)
      modify_memory<T>(cpu, bit_address<T>(cpu, insn, index, Access::kWrite), insn.lock, test);
    else
      test(static_cast<T>(cpu.load(bit_address<T>(cpu, insn, index, Access::kRead), sizeof(T))));
    flags.commit(cpu.s);
    return next(cpu, insn);
  });
}

// dest = f(source). The host sees the old destination in full: BSF of zero leaves it, at whatever width the host does.
#define BH_SCAN_ASM(text, letter, dest, source, flags)                    \
  __asm__(BH_FLAGS_IN text " %" letter "[b], %" letter "[a]" BH_FLAGS_OUT \
          : [a] "+r"(dest), "+a"(flags.image)                             \
          : [b] "r"(source)                                               \
          : "cc")
#define BH_SCAN(Name, text)                                \
  struct Name {                                            \
    template <class T>                                     \
    static u64 run(u64 dest, T source, HostFlags& flags) { \
      const u64 wide = source;                             \
      if constexpr (sizeof(T) == 2)                        \
        BH_SCAN_ASM(text, "w", dest, wide, flags);         \
      else if constexpr (sizeof(T) == 4)                   \
        BH_SCAN_ASM(text, "k", dest, wide, flags);         \
      else                                                 \
        BH_SCAN_ASM(text, "q", dest, wide, flags);         \
      return dest;                                         \
    }                                                      \
  };
BH_SCAN(Bsf, "bsf")
BH_SCAN(Bsr, "bsr")
BH_SCAN(Tzcnt, "tzcnt")
BH_SCAN(Lzcnt, "lzcnt")
BH_SCAN(Popcnt, "popcnt")

template <class Op>
StepResult scan(Cpu& cpu, const Insn& insn) {
  return by_wide_size(insn.operands[0].size, [&]<class T>(T) {
    const T source = read_operand<T>(cpu, insn, 1);
    HostFlags flags{cpu.s.rflags};
    u64& dest = cpu.s.gpr[insn.operands[0].reg];
    dest = Op::run(dest, source, flags);
    flags.commit(cpu.s);
    return next(cpu, insn);
  });
}

template <class T>
u32 crc32(u32 crc, T source) {
  u64 wide = crc;
  if constexpr (sizeof(T) == 8)
    __asm__("crc32q %[b], %[a]" : [a] "+r"(wide) : [b] "r"(source));
  else
    __asm__("crc32 %[b], %k[a]" : [a] "+r"(wide) : [b] "q"(source));
  return static_cast<u32>(wide);
}

// ADCX chains through CF only, ADOX through OF only.
template <u64 kFlag>
StepResult add_with(Cpu& cpu, const Insn& insn) {
  require_extension(cpu, Extension::kAdx);
  return by_wide_size(insn.operands[0].size, [&]<class T>(T) {
    const T b = read_operand<T>(cpu, insn, 1);
    const u128 sum = u128{read_operand<T>(cpu, insn, 0)} + b + ((cpu.s.rflags & kFlag) != 0);
    write_operand<T>(cpu, insn, 0, static_cast<T>(sum));
    const bool carry = (sum >> (8 * sizeof(T))) != 0;
    cpu.s.rflags = (cpu.s.rflags & ~kFlag) | (carry ? kFlag : 0);
    return next(cpu, insn);
  });
}

}  // namespace

StepResult op_bt(Cpu& cpu, const Insn& insn) { return bit_test<Bt, false>(cpu, insn); }
StepResult op_bts(Cpu& cpu, const Insn& insn) { return bit_test<Bts, true>(cpu, insn); }
StepResult op_btr(Cpu& cpu, const Insn& insn) { return bit_test<Btr, true>(cpu, insn); }
StepResult op_btc(Cpu& cpu, const Insn& insn) { return bit_test<Btc, true>(cpu, insn); }
StepResult op_bsf(Cpu& cpu, const Insn& insn) { return scan<Bsf>(cpu, insn); }
StepResult op_bsr(Cpu& cpu, const Insn& insn) { return scan<Bsr>(cpu, insn); }
// Without the feature F3 0F BC/BD are plain BSF/BSR.
StepResult op_tzcnt(Cpu& cpu, const Insn& insn) {
  return has_extension(cpu, Extension::kBmi1) ? scan<Tzcnt>(cpu, insn) : scan<Bsf>(cpu, insn);
}
StepResult op_lzcnt(Cpu& cpu, const Insn& insn) {
  return has_extension(cpu, Extension::kLzcnt) ? scan<Lzcnt>(cpu, insn) : scan<Bsr>(cpu, insn);
}
StepResult op_popcnt(Cpu& cpu, const Insn& insn) {
  require_extension(cpu, Extension::kPopcnt);
  return scan<Popcnt>(cpu, insn);
}

StepResult op_crc32(Cpu& cpu, const Insn& insn) {
  require_extension(cpu, Extension::kCrc32);
  return by_size(insn.operands[1].size, [&]<class T>(T) {
    const T source = read_operand<T>(cpu, insn, 1);
    cpu.s.gpr[insn.operands[0].reg] = crc32(static_cast<u32>(cpu.s.gpr[insn.operands[0].reg]), source);
    return next(cpu, insn);
  });
}

StepResult op_adcx(Cpu& cpu, const Insn& insn) { return add_with<kCf>(cpu, insn); }
StepResult op_adox(Cpu& cpu, const Insn& insn) { return add_with<kOf>(cpu, insn); }

}  // namespace bulkhead::engine::dbt
