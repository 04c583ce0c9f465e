#include "abi/xen/pv/cpu_policy.h"

#include <xen/arch-x86/cpuid.h>

#include <algorithm>
#include <array>

namespace bulkhead::abi::xen::pv {
namespace {

constexpr u32 bits(std::initializer_list<unsigned> list) {
  u32 mask = 0;
  for (const unsigned bit : list) mask |= 1u << bit;
  return mask;
}

struct Hidden {
  u32 leaf, subleaf;
  u32 eax, ebx, ecx, edx;
};
// As Xen 4.17 shows them to PV guests.
constexpr Hidden kHidden[] = {
    // DTES64 MONITOR DS-CPL VMX SMX EST TM2 PDCM PCID x2APIC TSC-deadline; VME PSE APIC MTRR PGE PSE36 PSN DS ACPI SS
    // HTT TM PBE
    {1, 0, 0, 0, bits({2, 3, 4, 5, 6, 7, 8, 15, 17, 21, 24}), bits({1, 3, 9, 12, 13, 17, 18, 21, 22, 27, 28, 29, 31})},
    // TSC_ADJUST SMEP INVPCID PQM MPX PQE SMAP; UMIP PKU OSPKE WAITPKG CET_SS LA57 RDPID ENQCMD PKS; UINTR IBRS/IBPB
    // STIBP L1D_FLUSH SSBD
    {7, 0, 0, bits({1, 7, 10, 12, 14, 15, 20}), bits({2, 3, 4, 5, 7, 16, 22, 29, 31}), bits({5, 20, 26, 27, 28, 31})},
    {7, 1, bits({17, 26}), 0, 0, 0},                                        // FRED, LAM
    {0xd, 1, bits({3, 4}), 0, 0, 0},                                        // XSAVES, XFD
    {0x80000001, 0, 0, 0, bits({2, 3, 9, 10, 12, 13, 19, 22, 23, 24, 28}),  // SVM EXTAPIC OSVW IBS ... TOPOEXT
     bits({1, 3, 9, 12, 13, 17, 26, 27})},                                  // those of leaf 1, PAGE1GB, RDTSCP
};
// Power, performance counters, MONITOR, RDT, SGX, PT: not for guests at all.
constexpr u32 kEmpty[] = {5, 6, 0xa, 0xf, 0x10, 0x12, 0x14};

// [xen/arch-x86/cpuid.h]
constexpr u32 kXenBase = 0x40000000, kLastLeaf = kXenBase + 5;

std::array<engine::CpuidLeaf, 6> xen_leaves(u64 tsc_hz) {
  constexpr u32 kVersion = 4u << 16 | 17, kHypercallMsr = 0x40000000;
  return {{{kXenBase, 0, kLastLeaf, XEN_CPUID_SIGNATURE_EBX, XEN_CPUID_SIGNATURE_ECX, XEN_CPUID_SIGNATURE_EDX},
           {kXenBase + 1, 0, kVersion, 0, 0, 0},
           {kXenBase + 2, 0, 1, kHypercallMsr, XEN_CPUID_FEAT1_MMU_PT_UPDATE_PRESERVE_AD, 0},
           {kXenBase + 3, 0, 0, 1, static_cast<u32>(tsc_hz / 1000), 0},
           {kXenBase + 4, 0, 0, 0, 0, 0},
           {kXenBase + 5, 0, 0, 36, 0, 0}}};
}

}  // namespace

engine::CpuModel pv_cpu_model(engine::CpuModel model) {
  for (engine::CpuidLeaf& leaf : model.leaves) {
    for (const Hidden& hidden : kHidden) {
      if (hidden.leaf != leaf.leaf || hidden.subleaf != leaf.subleaf) continue;
      leaf.eax &= ~hidden.eax;
      leaf.ebx &= ~hidden.ebx;
      leaf.ecx &= ~hidden.ecx;
      leaf.edx &= ~hidden.edx;
    }
    for (const u32 empty : kEmpty)
      if (leaf.leaf == empty) leaf.eax = leaf.ebx = leaf.ecx = leaf.edx = 0;
    if (leaf.leaf == 1) leaf.ecx |= 1u << 31;  // a hypervisor is there
  }
  std::erase_if(model.leaves, [](const auto& leaf) { return leaf.leaf >> 28 == kXenBase >> 28; });  // our own
  const auto at = std::ranges::find_if(model.leaves, [](const auto& leaf) { return leaf.leaf >= kXenBase; });
  const auto leaves = xen_leaves(model.tsc_hz);
  model.leaves.insert(at, leaves.begin(), leaves.end());
  return model;
}

}  // namespace bulkhead::abi::xen::pv
