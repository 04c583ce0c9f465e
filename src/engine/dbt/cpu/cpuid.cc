// CPUID: the model's table, with what depends on the vCPU and its present state put in.
#include "engine/dbt/cpu/cpu.h"
#include "engine/dbt/cpu/features.h"
#include "engine/dbt/cpu/lapic.h"
#include "engine/dbt/cpu/shared.h"

namespace bulkhead::engine::dbt {

namespace {
constexpr u32 kXsaveLegacyAndHeader = 512 + 64;

// Bytes of the standard-format XSAVE area for the components in `components` [SDM-1 §13.4].
u32 standard_size(const CpuModel& model, u64 components) {
  u32 size = kXsaveLegacyAndHeader;
  for (u32 i = 2; i < 63; ++i) {
    if (!bit(components, i)) continue;
    const CpuidLeaf leaf = model.lookup(0xd, i);
    if (leaf.eax + leaf.ebx > size) size = leaf.eax + leaf.ebx;
  }
  return size;
}

// The same for the compacted format: one behind the other, some aligned to 64 bytes [SDM-1 §13.4.3].
u32 compacted_size(const CpuModel& model, u64 components) {
  u32 size = kXsaveLegacyAndHeader;
  for (u32 i = 2; i < 63; ++i) {
    if (!bit(components, i)) continue;
    const CpuidLeaf leaf = model.lookup(0xd, i);
    if (leaf.ecx & 2) size = static_cast<u32>(align_up(size, 64));
    size += leaf.eax;
  }
  return size;
}
}  // namespace

void Cpu::cpuid() {
  spill_fpu();  // lookup() is ordinary code
  const auto leaf = static_cast<u32>(s.gpr[kRax]), subleaf = static_cast<u32>(s.gpr[kRcx]);
  const CpuModel& model = shared.cpu_model;
  CpuidLeaf answer = model.lookup(leaf, subleaf);
  switch (leaf) {
    case 1:
      answer.ebx = (answer.ebx & 0x00ffffff) | index << 24;
      if (s.cr4 & kCr4Osxsave) answer.ecx |= 1u << 27;
      if (!lapic->enabled()) answer.edx &= ~(1u << 9);
      break;
    case 0xb:
      if (answer.leaf == leaf) answer.edx = index;
      break;
    case 0xd:
      if (answer.leaf == leaf && subleaf == 0) answer.ebx = standard_size(model, s.xcr0);
      if (answer.leaf == leaf && subleaf == 1 && (answer.eax & 0xa)) answer.ebx = compacted_size(model, s.xcr0 | s.xss);
      break;
    case 0x8000001e:
      if (answer.leaf != leaf) break;
      answer.eax = index;
      answer.ebx |= index;  // core ID; threads per core - 1 is above it
      break;
    default:
      if (leaf != 0 && answer.leaf == leaf && leaf == model.vcpu_number_leaf && subleaf == 0) answer.ebx = index;
      break;
  }
  s.gpr[kRax] = answer.eax;
  s.gpr[kRbx] = answer.ebx;
  s.gpr[kRcx] = answer.ecx;
  s.gpr[kRdx] = answer.edx;
}

}  // namespace bulkhead::engine::dbt
