#include "abi/xen/pv/cpu_policy.h"

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
    // DTES64 MONITOR DS-CPL VMX SMX EST TM2 PDCM PCID x2APIC TSC-deadline; VME PSE APIC MTRR PGE PSE36 PSN DS ACPI SS HTT TM PBE
    {1, 0, 0, 0, bits({2, 3, 4, 5, 6, 7, 8, 15, 17, 21, 24}), bits({1, 6, 9, 12, 13, 17, 18, 21, 22, 27, 28, 29, 31})},
    // TSC_ADJUST SMEP INVPCID PQM MPX PQE SMAP; UMIP PKU OSPKE WAITPKG CET_SS LA57 RDPID ENQCMD PKS; UINTR IBRS/IBPB STIBP L1D_FLUSH SSBD
    {7, 0, 0, bits({1, 7, 10, 12, 14, 15, 20}), bits({2, 3, 4, 5, 7, 16, 22, 29, 31}), bits({5, 20, 26, 27, 28, 31})},
    {7, 1, bits({17, 26}), 0, 0, 0},                       // FRED, LAM
    {0xd, 1, bits({3, 4}), 0, 0, 0},                       // XSAVES, XFD
    {0x80000001, 0, 0, 0, bits({2, 3, 9, 10, 12, 13, 19, 22, 23, 24, 28}),  // SVM EXTAPIC OSVW IBS ... TOPOEXT
     bits({1, 6, 9, 12, 13, 17, 26, 27})},                                  // those of leaf 1, PAGE1GB, RDTSCP
};
// Power, performance counters, MONITOR, RDT, SGX, PT: not for guests at all.
constexpr u32 kEmpty[] = {5, 6, 0xa, 0xf, 0x10, 0x12, 0x14};

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
  return model;
}

}  // namespace bulkhead::abi::xen::pv
