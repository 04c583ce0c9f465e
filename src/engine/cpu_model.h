// Named CPU models: the CPUID a guest sees, the same on every engine, cut down to what the host has.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "base/ints.h"
#include "base/result.h"

namespace bulkhead::engine {

struct CpuidLeaf {
  u32 leaf = 0;
  u32 subleaf = 0;
  u32 eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// A finished table. Fields that depend on the vCPU (APIC ID, OSXSAVE, enabled XSAVE size, topology) are patched by the
// engine at CPUID time; the table holds their value for vCPU 0.
struct CpuModel {
  std::string name;               // "host", "x86-64-v3", ...
  std::vector<CpuidLeaf> leaves;  // ascending by (leaf, subleaf)
  u64 xcr0_mask = 3;              // XSAVE components that the guest may enable
  u64 tsc_hz = 0;                 // rate of the guest's TSC: the host's
  u32 vcpu_number_leaf = 0;       // a leaf in which EBX is the vCPU's number; 0: none
  // The answer to CPUID; leaves out of range follow [SDM-2A CPUID]: the highest basic leaf for Intel, zero for AMD.
  CpuidLeaf lookup(u32 leaf, u32 subleaf) const;
  bool has(u32 leaf, u32 subleaf, char reg, unsigned bit) const;  // reg: 'a','b','c','d'
};

// Names that make_cpu_model() knows, most capable first.
std::vector<std::string_view> cpu_model_names();

// The model `name` for `vcpus` vCPUs. Errors: unknown name, or (for a portable model) the host lacks a feature of it;
// the message names the feature and the models that would work.
Result<CpuModel> make_cpu_model(std::string_view name, unsigned vcpus);

}  // namespace bulkhead::engine
