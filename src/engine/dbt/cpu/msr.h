// Numbers of the MSRs that we keep [SDM-4, AMD PPR].
#pragma once
#include <array>

#include "base/ints.h"

namespace bulkhead::engine::dbt {

inline constexpr u32 kMsrTsc = 0x10, kMsrApicBase = 0x1b, kMsrFeatureControl = 0x3a, kMsrTscAdjust = 0x3b,
                     kMsrSpecCtrl = 0x48, kMsrPredCmd = 0x49, kMsrPatchLevel = 0x8b, kMsrMtrrCap = 0xfe,
                     kMsrArchCapabilities = 0x10a, kMsrFlushCmd = 0x10b, kMsrSysenterCs = 0x174,
                     kMsrSysenterEsp = 0x175, kMsrSysenterEip = 0x176, kMsrMcgCap = 0x179, kMsrMcgStatus = 0x17a,
                     kMsrMcgCtl = 0x17b, kMsrMiscEnable = 0x1a0, kMsrDebugCtl = 0x1d9, kMsrMtrrPhysBase0 = 0x200,
                     kMsrMtrrPhysMask7 = 0x20f, kMsrMtrrFix64K = 0x250, kMsrMtrrFix16K0 = 0x258,
                     kMsrMtrrFix16K1 = 0x259, kMsrMtrrFix4K0 = 0x268, kMsrMtrrFix4K7 = 0x26f, kMsrPat = 0x277,
                     kMsrMtrrDefType = 0x2ff, kMsrTscDeadline = 0x6e0, kMsrX2apicFirst = 0x800, kMsrX2apicLast = 0x8ff,
                     kMsrXss = 0xda0, kMsrEfer = 0xc0000080, kMsrStar = 0xc0000081, kMsrLstar = 0xc0000082,
                     kMsrCstar = 0xc0000083, kMsrSfmask = 0xc0000084, kMsrFsBase = 0xc0000100, kMsrGsBase = 0xc0000101,
                     kMsrKernelGsBase = 0xc0000102, kMsrTscAux = 0xc0000103, kMsrSyscfg = 0xc0010010,
                     kMsrHwcr = 0xc0010015, kMsrDeCfg = 0xc0011029;

// Those that make up a vCPU's state beside the fields of VcpuState, ascending.
inline constexpr std::array kStateMsrs = {
    kMsrTsc,      kMsrTscAdjust,  kMsrSpecCtrl,    kMsrSysenterCs,  kMsrSysenterEsp, kMsrSysenterEip,  kMsrMiscEnable,
    kMsrDebugCtl, kMsrMtrrFix64K, kMsrMtrrFix16K0, kMsrMtrrFix16K1, kMsrPat,         kMsrMtrrDefType,  kMsrStar,
    kMsrLstar,    kMsrCstar,      kMsrSfmask,      kMsrFsBase,      kMsrGsBase,      kMsrKernelGsBase, kMsrTscAux};

}  // namespace bulkhead::engine::dbt
