// Model-specific registers. What we do not know goes to the machine as an MsrExit, which decides between a value and
// #GP.
#include "engine/dbt/cpu/msr.h"

#include "engine/dbt/cpu/cpu.h"
#include "engine/dbt/cpu/lapic.h"

namespace bulkhead::engine::dbt {
namespace {

constexpr u64 kMtrrEnable = 1u << 11, kMtrrFixedEnable = 1u << 10;
constexpr unsigned kVariableMtrrs = 8;

// The host that runs us carries the mitigations; the guest's own would only cost time. RDCL_NO, IBRS_ALL (else:
// retpolines), SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO,
// PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO.
constexpr u64 kArchCapabilities = 1u << 0 | 1u << 1 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 8 | 1u << 13 |
                                  1u << 14 | 1u << 15 | 1u << 20 | 1u << 24 | 1u << 26 | 1u << 27 | u64{1} << 62;
constexpr u64 kHwcrTscFreqSel =
    1u << 24;  // the TSC counts with the P0 frequency; read-only, and kernels complain without it

// Registers of real processors that kernels read on the way and that have nothing behind them here: they read as
// `value` and ignore writes.
struct Inert {
  u32 first, last;
  u64 value;
};
constexpr Inert kInertCommon[] = {
    {0x79, 0x79, 0},    // microcode update trigger
    {0x8b, 0x8b, 0},    // patch level
    {0xe7, 0xe8, 0},    // MPERF, APERF
    {0x198, 0x199, 0},  // PERF_STATUS, PERF_CTL
    {0x19a, 0x19c, 0},  // clock modulation, thermal
    {0x1db, 0x1de, 0},  // last branch
};
constexpr Inert kInertIntel[] = {
    {0x17, 0x17, 0},    // platform ID
    {0x2a, 0x2a, 0},    // EBL_CR_POWERON
    {0x34, 0x34, 0},    // SMI count
    {0xc1, 0xc8, 0},    // PMCs
    {0xcd, 0xcd, 0},    // FSB frequency
    {0xce, 0xce, 0},    // platform info
    {0x11e, 0x11e, 0},  // BBL_CR_CTL3
    {0x140, 0x140, 0},  // MISC_FEATURES_ENABLES
    {0x186, 0x18d, 0},  // PERFEVTSELs
    {0x1a2, 0x1a2, 0},  // temperature target
    {0x1a4, 0x1a4, 0},  // prefetch control
    {0x1a6, 0x1a8, 0},  // offcore response, MISC_PWR_MGMT
    {0x1ad, 0x1ad, 0},  // turbo ratios
    {0x1b0, 0x1b0, 0},  // energy bias
    {0x1c8, 0x1c9, 0},  // LBR
    {0x1fc, 0x1fc, 0},  // POWER_CTL
    {0x309, 0x30b, 0},  // fixed counters
    {0x345, 0x345, 0},  // PERF_CAPABILITIES
    {0x38d, 0x390, 0},  // global counter control
    {0x4c1, 0x4c8, 0},  // wide PMCs
    {0x606, 0x606, 0}, {0x611, 0x611, 0}, {0x619, 0x619, 0}, {0x639, 0x639, 0}, {0x641, 0x641, 0},  // RAPL
};
constexpr Inert kInertAmd[] = {
    {0xc0000108, 0xc0000108, 0},                                  // prefetch control
    {0xc0000300, 0xc0000303, 0},                                  // global counter control
    {0xc0010000, 0xc0010007, 0},                                  // counters
    {0xc001001a, 0xc001001a, 0},                                  // TOP_MEM
    {0xc001001d, 0xc001001d, 0},                                  // TOP_MEM2
    {0xc001001f, 0xc001001f, 0},                                  // NB_CFG
    {0xc0010020, 0xc0010020, 0},                                  // patch loader
    {0xc0010055, 0xc0010058, 0},                                  // interrupt pending, MMIO configuration
    {0xc0010061, 0xc001006b, 0},                                  // P-states
    {0xc0010074, 0xc0010074, 0},                                  // watchdog
    {0xc0010114, 0xc0010114, 0x10},                               // VM_CR: SVM disabled
    {0xc0010117, 0xc0010117, 0},    {0xc0010140, 0xc0010141, 0},  // OSVW
    {0xc0010200, 0xc001020b, 0},                                  // core counters
    {0xc0010230, 0xc001023b, 0},    {0xc0010240, 0xc0010247, 0},  // L3, northbridge counters
    {0xc0010292, 0xc0010293, 0},    {0xc0010299, 0xc001029b, 0},  // P-state and energy
    {0xc0011004, 0xc0011005, 0},                                  // CPUID overrides
    {0xc0011020, 0xc0011028, 0},                                  // LS_CFG and its neighbours
    {0xc001102a, 0xc001102f, 0},    {0xc00110e3, 0xc00110e3, 0},
};

const Inert* find(std::span<const Inert> table, u32 index) {
  for (const Inert& entry : table)
    if (index >= entry.first && index <= entry.last) return &entry;
  return nullptr;
}
const Inert* find_inert(u32 index, bool amd) {
  if (const Inert* entry = find(kInertCommon, index)) return entry;
  return amd ? find(kInertAmd, index) : find(kInertIntel, index);
}

bool valid_memory_type(u64 type) { return type <= 1 || (type >= 4 && type <= 6); }
bool valid_pat(u64 value) {
  for (unsigned i = 0; i < 64; i += 8) {
    const u64 type = (value >> i) & 0xff;
    if (!valid_memory_type(type) && type != 7) return false;
  }
  return true;
}

// Position of a fixed-range MTRR in storage, or -1.
int fixed_mtrr(u32 index) {
  if (index == kMsrMtrrFix64K) return 0;
  if (index == kMsrMtrrFix16K0 || index == kMsrMtrrFix16K1) return 1 + static_cast<int>(index - kMsrMtrrFix16K0);
  if (index >= kMsrMtrrFix4K0 && index <= kMsrMtrrFix4K7) return 3 + static_cast<int>(index - kMsrMtrrFix4K0);
  return -1;
}

bool is_lapic(u32 index) {
  return index == kMsrApicBase || index == kMsrTscDeadline || (index >= kMsrX2apicFirst && index <= kMsrX2apicLast);
}

}  // namespace

void Cpu::power_on_msrs() {
  s.star = s.lstar = s.cstar = s.sfmask = s.kernel_gs_base = s.tsc_aux = 0;
  s.sysenter_cs = s.sysenter_esp = s.sysenter_eip = 0;
  s.pat = 0x0007040600070406;
  s.misc_enable = features.amd ? 0 : 1 | 1u << 11 | 1u << 12;  // fast strings; no BTS, no PEBS
  s.mtrr_def_type = s.spec_ctrl = s.xss = s.tsc_adjust = 0;
  mtrr_variable_ = {};
  mtrr_fixed_ = {};
  debug_ctl_ = syscfg_ = mcg_status_ = 0;
  hwcr_ = kHwcrTscFreqSel;
}

// Registers that hold what was written to them.
u64* Cpu::msr_slot(u32 number) {
  switch (number) {
    case kMsrSysenterCs:
      return &s.sysenter_cs;
    case kMsrSysenterEsp:
      return &s.sysenter_esp;
    case kMsrSysenterEip:
      return &s.sysenter_eip;
    case kMsrMiscEnable:
      return &s.misc_enable;
    case kMsrDebugCtl:
      return &debug_ctl_;
    case kMsrPat:
      return &s.pat;
    case kMsrStar:
      return &s.star;
    case kMsrLstar:
      return &s.lstar;
    case kMsrCstar:
      return &s.cstar;
    case kMsrSfmask:
      return &s.sfmask;
    case kMsrFsBase:
      return &s.seg[kFs].base;
    case kMsrGsBase:
      return &s.seg[kGs].base;
    case kMsrKernelGsBase:
      return &s.kernel_gs_base;
    case kMsrMcgStatus:
      return features.mca ? &mcg_status_ : nullptr;
    case kMsrTscAux:
      return features.rdtscp ? &s.tsc_aux : nullptr;
    case kMsrTscAdjust:
      return features.tsc_adjust ? &s.tsc_adjust : nullptr;
    case kMsrSpecCtrl:
      return features.spec_ctrl ? &s.spec_ctrl : nullptr;
    case kMsrXss:
      return features.xsaves ? &s.xss : nullptr;
    case kMsrSyscfg:
      return features.amd ? &syscfg_ : nullptr;
    case kMsrHwcr:
      return features.amd ? &hwcr_ : nullptr;
    default:
      return nullptr;
  }
}

bool Cpu::read_mtrr(u32 number, u64& value) const {
  if (!features.mtrr) return false;
  if (number == kMsrMtrrCap) {
    value = 0x500 | kVariableMtrrs;  // WC, fixed ranges
  } else if (number == kMsrMtrrDefType) {
    value = s.mtrr_def_type;
  } else if (number >= kMsrMtrrPhysBase0 && number <= kMsrMtrrPhysMask7) {
    value = mtrr_variable_[number - kMsrMtrrPhysBase0];
  } else if (const int i = fixed_mtrr(number); i >= 0) {
    value = mtrr_fixed_[static_cast<unsigned>(i)];
  } else {
    return false;
  }
  return true;
}

// Memory types are kept for the guest to read back; all its memory is cacheable.
bool Cpu::write_mtrr(u32 number, u64 value) {
  if (!features.mtrr) return false;
  const u64 address_bits = ((u64{1} << features.physical_bits) - 1) & ~u64{0xfff};
  if (number == kMsrMtrrCap) raise(kGp, 0);
  if (number == kMsrMtrrDefType) {
    if ((value & ~(kMtrrEnable | kMtrrFixedEnable | 0xff)) || !valid_memory_type(value & 0xff)) raise(kGp, 0);
    s.mtrr_def_type = value;
  } else if (number >= kMsrMtrrPhysBase0 && number <= kMsrMtrrPhysMask7) {
    const bool is_mask = number & 1;
    if (value & ~(address_bits | (is_mask ? 0x800 : 0xff))) raise(kGp, 0);
    if (!is_mask && !valid_memory_type(value & 0xff)) raise(kGp, 0);
    mtrr_variable_[number - kMsrMtrrPhysBase0] = value;
  } else if (const int i = fixed_mtrr(number); i >= 0) {
    for (unsigned shift = 0; shift < 64; shift += 8)
      // Bits 3 and 4 of each byte are AMD's RdMem and WrMem.
      if (!valid_memory_type((value >> shift) & (features.amd ? 0xe7 : 0xff))) raise(kGp, 0);
    mtrr_fixed_[static_cast<unsigned>(i)] = value;
  } else {
    return false;
  }
  return true;
}

u64 Cpu::read_msr(u32 number) {
  u64 value = 0;
  if (is_lapic(number)) {
    if (!lapic->read_msr(number, value)) raise(kGp, 0);
    return value;
  }
  if (const u64* slot = msr_slot(number)) return *slot;
  if (read_mtrr(number, value)) return value;
  switch (number) {
    case kMsrTsc:
      return read_tsc();
    case kMsrEfer:
      return s.efer;
    case kMsrFeatureControl:
      if (!features.amd) return 1;  // locked, VMX off
      break;
    case kMsrArchCapabilities:
      if (features.arch_capabilities) return kArchCapabilities;
      break;
    case kMsrDeCfg:
      if (features.amd) return 2;  // LFENCE serializes
      break;
    case kMsrMcgCap:
      if (features.mca) return 0;  // no banks
      break;
    case kMsrPredCmd:
    case kMsrFlushCmd:
      raise(kGp, 0);  // write only
    default:
      break;
  }
  if (const Inert* inert = find_inert(number, features.amd)) return inert->value;
  return unknown_msr_read(number);
}

void Cpu::write_msr(u32 number, u64 value) {
  if (is_lapic(number)) {
    const u64 old_base = lapic->base();
    if (!lapic->write_msr(number, value)) raise(kGp, 0);
    if (number == kMsrApicBase && lapic->base() != old_base) flush_tlb(true);
    return interrupts_may_be_deliverable();
  }
  if (write_mtrr(number, value)) return;
  if (check_msr_write(number, value)) return;
  if (u64* slot = msr_slot(number)) {
    *slot = value;
    return;
  }
  if (find_inert(number, features.amd) != nullptr) return;
  unknown_msr_write(number, value);
}

// Raises for a value that the register cannot hold. True when the write is done; false: it is for whoever holds the
// register.
bool Cpu::check_msr_write(u32 number, u64 value) {
  const auto require = [this](bool condition) {
    if (!condition) raise(kGp, 0);
  };
  switch (number) {
    case kMsrTsc:
      write_tsc(value);
      return true;
    case kMsrEfer:
      write_efer(value);
      return true;
    case kMsrTscAdjust:
      if (!features.tsc_adjust) return false;
      s.tsc_offset += value - s.tsc_adjust;
      s.tsc_adjust = value;
      lapic->tsc_offset_changed();
      return true;
    case kMsrLstar:
    case kMsrCstar:
    case kMsrFsBase:
    case kMsrGsBase:
    case kMsrKernelGsBase:
    case kMsrSysenterEsp:
    case kMsrSysenterEip:
      require(canonical(value));
      return false;
    case kMsrPat:
      require(valid_pat(value));
      return false;
    case kMsrSpecCtrl:
      require(!features.spec_ctrl || (value & ~u64{0x407}) == 0);
      return false;  // IBRS STIBP SSBD, BHI_DIS_S
    case kMsrPredCmd:
      if (!features.pred_cmd) return false;
      require((value & ~u64{0x81}) == 0);
      return true;
    case kMsrFlushCmd:
      if (!features.flush_cmd) return false;
      require((value & ~u64{1}) == 0);
      return true;
    case kMsrTscAux:
      require((value >> 32) == 0);
      return false;
    case kMsrXss:
      require(!features.xsaves || value == 0);
      return false;
    case kMsrDebugCtl:
      require((value & ~u64{0x5fff}) == 0);
      return false;
    case kMsrMcgStatus:
      require(!features.mca || value == 0);
      return false;
    case kMsrFeatureControl:
      require(features.amd);
      return false;
    case kMsrArchCapabilities:
      require(!features.arch_capabilities);
      return false;
    case kMsrMcgCap:
      require(!features.mca);
      return false;
    case kMsrDeCfg:
      return features.amd;
    default:
      return false;
  }
}

u64 Cpu::unknown_msr_read(u32 number) {
  u64 value = 0;
  if (!next_answer(value)) escape_exit(MsrExit{number, false, 0, true});
  if (io_log.fault) raise(kGp, 0);
  return value;
}

void Cpu::unknown_msr_write(u32 number, u64 value) {
  u64 ignored = 0;
  if (!next_answer(ignored)) escape_exit(MsrExit{number, true, value, true});
  if (io_log.fault) raise(kGp, 0);
}

}  // namespace bulkhead::engine::dbt
