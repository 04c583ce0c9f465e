#include "engine/dbt/cpu/features.h"

namespace bulkhead::engine::dbt {
namespace {

CpuidLeaf find(const CpuModel& model, u32 leaf, u32 subleaf = 0) {
  for (const CpuidLeaf& entry : model.leaves)
    if (entry.leaf == leaf && entry.subleaf == subleaf) return entry;
  return {leaf, subleaf, 0, 0, 0, 0};
}

constexpr bool has(u32 word, unsigned index) { return (word >> index) & 1; }

u64 cr4_bits(const CpuidLeaf& one, const CpuidLeaf& seven) {
  u64 allowed = kCr4Tsd | kCr4Pce;
  const auto allow = [&](bool condition, u64 mask) { allowed |= condition ? mask : 0; };
  allow(has(one.edx, 1), kCr4Vme | kCr4Pvi);
  allow(has(one.edx, 2), kCr4De);
  allow(has(one.edx, 3), kCr4Pse);
  allow(has(one.edx, 6), kCr4Pae);
  allow(has(one.edx, 7), kCr4Mce);
  allow(has(one.edx, 13), kCr4Pge);
  allow(has(one.edx, 24), kCr4Osfxsr);
  allow(has(one.edx, 25), kCr4Osxmmexcpt);
  allow(has(one.ecx, 17), kCr4Pcide);
  allow(has(one.ecx, 26), kCr4Osxsave);
  allow(has(seven.ecx, 2), kCr4Umip);
  allow(has(seven.ebx, 0), kCr4Fsgsbase);
  allow(has(seven.ebx, 7), kCr4Smep);
  allow(has(seven.ebx, 20), kCr4Smap);
  return allowed;
}

u64 efer_bits(const CpuidLeaf& extended, const CpuidLeaf& extended21) {
  u64 allowed = 0;
  const auto allow = [&](bool condition, u64 mask) { allowed |= condition ? mask : 0; };
  allow(has(extended.edx, 11), kEferSce);
  allow(has(extended.edx, 29), kEferLme | kEferSce);
  allow(has(extended.edx, 20), kEferNxe);
  allow(has(extended.ecx, 17), kEferTce);
  allow(has(extended21.eax, 8), kEferAutoIbrs);
  return allowed;
}

}  // namespace

CpuFeatures CpuFeatures::of(const CpuModel& model) {
  const CpuidLeaf zero = find(model, 0), one = find(model, 1), seven = find(model, 7), xsave = find(model, 0xd, 1);
  const CpuidLeaf extended = find(model, 0x80000001), sizes = find(model, 0x80000008);
  CpuFeatures f;
  f.amd = zero.ebx == 0x68747541 || zero.ebx == 0x6f677948;  // "Auth", "Hygo"
  f.nx = has(extended.edx, 20);
  f.gbyte_pages = has(extended.edx, 26);
  f.pse36 = has(one.edx, 17);
  f.long_mode = has(extended.edx, 29);
  f.rdtscp = has(extended.edx, 27) || has(seven.ecx, 22);
  f.spec_ctrl = has(seven.edx, 26) || has(sizes.ebx, 14) || has(sizes.ebx, 15) || has(sizes.ebx, 24);
  f.pred_cmd = has(seven.edx, 26) || has(sizes.ebx, 12);
  f.flush_cmd = has(seven.edx, 28);
  f.arch_capabilities = has(seven.edx, 29);
  f.tsc_adjust = has(seven.ebx, 1);
  f.xsaves = has(xsave.eax, 3);
  f.mtrr = has(one.edx, 12);
  f.mca = has(one.edx, 14);
  f.physical_bits = static_cast<u8>(sizes.eax & 0xff);
  if (f.physical_bits < 32 || f.physical_bits > 52) f.physical_bits = 36;
  f.signature = one.eax;
  f.cr4_allowed = cr4_bits(one, seven);
  f.efer_allowed = efer_bits(extended, find(model, 0x80000021));
  f.xcr0_allowed = model.xcr0_mask;
  return f;
}

}  // namespace bulkhead::engine::dbt
