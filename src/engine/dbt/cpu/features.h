// What the CPU model means for paging, control registers and MSRs: looked up once, because CPUID tables are searched by
// code that may use vector registers.
#pragma once
#include "base/ints.h"
#include "engine/cpu_model.h"

namespace bulkhead::engine::dbt {

struct CpuFeatures {
  bool amd = false;  // AMD's or Hygon's rules where the vendors differ
  bool nx = false, gbyte_pages = false, pse36 = false;
  bool long_mode = false, rdtscp = false;
  bool spec_ctrl = false, pred_cmd = false, flush_cmd = false, arch_capabilities = false;
  bool tsc_adjust = false, xsaves = false, mtrr = false, mca = false;
  u8 physical_bits = 36;
  u32 signature = 0;  // CPUID.1:EAX, in EDX after reset
  u64 cr4_allowed = 0;
  u64 efer_allowed = 0;
  u64 xcr0_allowed = 3;

  static CpuFeatures of(const CpuModel& model);
  // Bits of a guest-physical address that must be zero in a 64-bit paging-structure entry, below bit 52.
  u64 reserved_address_bits() const { return ((u64{1} << 52) - 1) & ~((u64{1} << physical_bits) - 1); }
};

// CR4 [SDM-3A §2.5]
inline constexpr u64 kCr4Vme = 1u << 0, kCr4Pvi = 1u << 1, kCr4Tsd = 1u << 2, kCr4De = 1u << 3, kCr4Pse = 1u << 4,
                     kCr4Pae = 1u << 5, kCr4Mce = 1u << 6, kCr4Pge = 1u << 7, kCr4Pce = 1u << 8, kCr4Osfxsr = 1u << 9,
                     kCr4Osxmmexcpt = 1u << 10, kCr4Umip = 1u << 11, kCr4Fsgsbase = 1u << 16, kCr4Pcide = 1u << 17,
                     kCr4Osxsave = 1u << 18, kCr4Smep = 1u << 20, kCr4Smap = 1u << 21;
// CR0
inline constexpr u64 kCr0Pe = 1u << 0, kCr0Mp = 1u << 1, kCr0Em = 1u << 2, kCr0Ts = 1u << 3, kCr0Et = 1u << 4,
                     kCr0Ne = 1u << 5, kCr0Wp = 1u << 16, kCr0Am = 1u << 18, kCr0Nw = 1u << 29, kCr0Cd = 1u << 30,
                     kCr0Pg = 1u << 31;
// EFER
inline constexpr u64 kEferSce = 1u << 0, kEferLme = 1u << 8, kEferLma = 1u << 10, kEferNxe = 1u << 11,
                     kEferFfxsr = 1u << 14, kEferTce = 1u << 15, kEferAutoIbrs = 1u << 21;

}  // namespace bulkhead::engine::dbt
