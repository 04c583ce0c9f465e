#include "engine/kvm/cpuid.h"

#include <cpuid.h>

#include <algorithm>

#include "base/bits.h"
#include "engine/cpu_features.h"

namespace bulkhead::engine::kvm {
namespace {

// A register of a leaf that is a list of features, each of which KVM must know.
struct FeatureWord {
  u32 leaf, subleaf;
  u32 CpuidLeaf::* reg;
  char name;
  u32 ours;  // bits that are not the host's to give: topology, and what the interrupt controllers in KVM bring
};
constexpr u32 kHypervisor = 1u << 31, kX2apic = 1u << 21, kDeadline = 1u << 24, kOsxsave = 1u << 27;
constexpr u32 kKvmFeatures = 0x40000001;
constexpr u32 kHyperThreading = 1u << 28, kApic = 1u << 9;
constexpr FeatureWord kWords[] = {
    {1, 0, &CpuidLeaf::ecx, 'c', kHypervisor | kX2apic | kOsxsave},
    {1, 0, &CpuidLeaf::edx, 'd', kHyperThreading | kApic},
    {6, 0, &CpuidLeaf::eax, 'a', 1u << 2},  // ARAT: KVM's LAPIC timer never stops
    {7, 0, &CpuidLeaf::ebx, 'b', 0},
    {7, 0, &CpuidLeaf::ecx, 'c', 0},
    {7, 0, &CpuidLeaf::edx, 'd', 0},
    {7, 1, &CpuidLeaf::eax, 'a', 0},
    {7, 2, &CpuidLeaf::edx, 'd', 0},
    {0xd, 1, &CpuidLeaf::eax, 'a', 0},
    {0x80000001, 0, &CpuidLeaf::ecx, 'c', 1u << 1 | 1u << 22},  // CMP_LEGACY, TOPOEXT
    {0x80000001, 0, &CpuidLeaf::edx, 'd', kApic},
    {0x80000007, 0, &CpuidLeaf::edx, 'd', 0},
    {0x80000008, 0, &CpuidLeaf::ebx, 'b', 0},
    {0x80000021, 0, &CpuidLeaf::eax, 'a', 0},
    {0x80000021, 0, &CpuidLeaf::ecx, 'c', 0},
};

// Features of KVM's ABI that a guest uses by hypercall: kicks, IPIs, yielding.
constexpr u32 kByHypercall = 1u << 7 | 1u << 11 | 1u << 13;
constexpr u32 kAmd = 0x68747541, kHygon = 0x6f677948;  // "Auth", "Hygo"

constexpr bool has_subleaves(u32 leaf) {
  return leaf == 4 || leaf == 7 || leaf == 0xb || leaf == 0xd || leaf == 0x8000001d;
}

CpuidLeaf find(const std::vector<CpuidLeaf>& leaves, u32 leaf, u32 subleaf) {
  for (const CpuidLeaf& entry : leaves)
    if (entry.leaf == leaf && entry.subleaf == subleaf) return entry;
  return {leaf, subleaf};
}

// KVM lists the deadline timer in its table only since 6.0 or so.
u32 extra(const FeatureWord& word, const KvmHost& host) {
  const bool deadline = word.leaf == 1 && word.name == 'c' && host.check(KVM_CAP_TSC_DEADLINE_TIMER) > 0;
  return word.ours | (deadline ? kDeadline : 0);
}

// Features that a portable model promises; what engines provide or not is no part of the promise.
Result<void> check_promise(const CpuModel& model, const FeatureWord& word, u32 lost) {
  if (model.name == "host") return {};
  for (const FeatureBit& feature : feature_bits())
    if (feature.leaf == word.leaf && feature.subleaf == word.subleaf && feature.reg == word.name &&
        feature.provider == Provider::kHost && bit(lost, feature.bit))
      return fail("CPU model '{}' needs {}, which this host's KVM does not give to guests; use the CPU model host",
                  model.name, feature.name);
  return {};
}

}  // namespace

bool calls_by_vmcall(u32 vendor_ebx) { return vendor_ebx != kAmd && vendor_ebx != kHygon; }

bool host_calls_by_vmcall() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  __cpuid(0, eax, ebx, ecx, edx);
  return calls_by_vmcall(ebx);
}

Result<CpuModel> cut_to_kvm(CpuModel model, const KvmHost& host, ParavirtAbi abi) {
  const std::vector<CpuidLeaf> supported = host.supported_cpuid();
  if (supported.empty()) return fail("this host's KVM does not tell what CPUID its guests may have");
  for (const FeatureWord& word : kWords)
    for (CpuidLeaf& entry : model.leaves) {
      if (entry.leaf != word.leaf || entry.subleaf != word.subleaf) continue;
      const u32 lost = entry.*word.reg & ~(find(supported, word.leaf, word.subleaf).*word.reg | extra(word, host));
      BH_TRY(check_promise(model, word, lost));
      entry.*word.reg &= ~lost;
    }
  if (abi == ParavirtAbi::kKvm)
    for (CpuidLeaf& entry : model.leaves)
      if (entry.leaf == kKvmFeatures) {
        entry.eax &= find(supported, kKvmFeatures, 0).eax;
        if (calls_by_vmcall(model.lookup(0, 0).ebx) != host_calls_by_vmcall()) entry.eax &= ~kByHypercall;
      }
  const CpuidLeaf xsave = find(supported, 0xd, 0);
  if (!model.has(1, 0, 'c', 26)) model.xcr0_mask = 3;
  const u64 lost = model.xcr0_mask & ~(xsave.eax | u64{xsave.edx} << 32);
  if (model.has(1, 0, 'c', 26) && lost != 0)
    return fail("the CPU model '{}' has XSAVE components {:#x}, which this host's KVM does not give to guests",
                model.name, lost);
  return model;
}

std::vector<kvm_cpuid_entry2> cpuid_entries(const CpuModel& model, unsigned index) {
  std::vector<kvm_cpuid_entry2> out;
  for (CpuidLeaf leaf : model.leaves) {
    if (leaf.leaf == 1) leaf.ebx = (leaf.ebx & 0x00ffffff) | index << 24;
    if (leaf.leaf == 0xb) leaf.edx = index;
    if (leaf.leaf == 0x8000001e) leaf.eax = index, leaf.ebx |= index;
    if (leaf.leaf != 0 && leaf.leaf == model.vcpu_number_leaf && leaf.subleaf == 0) leaf.ebx = index;
    // What comes in several subleaves, Xen's time leaf among them.
    const bool several = has_subleaves(leaf.leaf) || std::ranges::count(model.leaves, leaf.leaf, &CpuidLeaf::leaf) > 1;
    kvm_cpuid_entry2 entry{};
    entry.function = leaf.leaf;
    entry.index = leaf.subleaf;
    entry.flags = several ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0;
    entry.eax = leaf.eax, entry.ebx = leaf.ebx, entry.ecx = leaf.ecx, entry.edx = leaf.edx;
    out.push_back(entry);
  }
  return out;
}

}  // namespace bulkhead::engine::kvm
