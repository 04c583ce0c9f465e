#include "abi/xen/pvh_interface.h"

#include <xen/arch-x86/cpuid.h>
#include <xen/xen.h>

#include <algorithm>
#include <cstring>

#include "abi/xen/guest_clock.h"
#include "abi/xen/version.h"
#include "base/assert.h"

namespace bulkhead::abi::xen {
namespace {
constexpr unsigned kEntrySize = 32;
constexpr u32 kLastLeaf = kXenLeaves + XEN_CPUID_MAX_NUM_LEAVES;
constexpr u32 kHypervisorBit = 1u << 31;

engine::CpuidLeaf& leaf_for_insertion(engine::CpuModel& model, u32 leaf, u32 subleaf) {
  const auto before = [&](const engine::CpuidLeaf& l) {
    return std::pair{l.leaf, l.subleaf} < std::pair{leaf, subleaf};
  };
  const auto at = std::ranges::partition_point(model.leaves, before);
  if (at != model.leaves.end() && at->leaf == leaf && at->subleaf == subleaf) return *at;
  return *model.leaves.insert(at, {leaf, subleaf});
}
}  // namespace

engine::CpuModel with_xen_leaves(engine::CpuModel model, u16 domid) {
  std::erase_if(model.leaves, [](const engine::CpuidLeaf& l) { return l.leaf >> 16 == kXenLeaves >> 16; });
  const auto set = [&](u32 number, u32 subleaf, u32 eax, u32 ebx, u32 ecx, u32 edx) {
    leaf_for_insertion(model, kXenLeaves + number, subleaf) = {kXenLeaves + number, subleaf, eax, ebx, ecx, edx};
  };
  DomainConfig config;
  config.tsc_hz = model.tsc_hz;
  HostClock unused;
  const vcpu_time_info_t time = GuestClock{config, unused}.time_info();
  const u32 khz = static_cast<u32>(model.tsc_hz / 1000);
  set(0, 0, kLastLeaf, XEN_CPUID_SIGNATURE_EBX, XEN_CPUID_SIGNATURE_ECX, XEN_CPUID_SIGNATURE_EDX);
  set(1, 0, kXenVersion, 0, 0, 0);
  set(2, 0, 1, kHypercallPageMsr, 0, 0);
  // Time: the TSC is not emulated, in the default mode, at this rate, first incarnation.
  constexpr u32 kHostTscIsSafe = 1u << 1;
  set(3, 0, kHostTscIsSafe, 0, khz, 0);
  set(3, 1, 0, 0, time.tsc_to_system_mul, static_cast<u8>(time.tsc_shift));
  set(3, 2, khz, 0, 0, 0);
  // The engine puts the vCPU's number into EBX.
  set(4, 0, XEN_HVM_CPUID_VCPU_ID_PRESENT | XEN_HVM_CPUID_DOMID_PRESENT | XEN_HVM_CPUID_UPCALL_VECTOR, 0, domid, 0);
  set(5, 0, 0, 0, 0, 0);
  model.vcpu_number_leaf = kXenLeaves + 4;
  leaf_for_insertion(model, 1, 0).ecx |= kHypervisorBit;
  return model;
}

std::array<std::byte, kPageSize> hypercall_page(std::span<const u8> call) {
  BH_ASSERT(call.size() <= 8);
  std::array<std::byte, kPageSize> page;
  page.fill(std::byte{0xcc});
  for (unsigned number = 0; number < kPageSize / kEntrySize; ++number) {
    std::byte* const entry = page.data() + number * kEntrySize;
    const auto put = [&](unsigned at, std::span<const u8> code) { std::memcpy(entry + at, code.data(), code.size()); };
    if (number == __HYPERVISOR_iret) {  // a PV guest's IRET is no hypercall here: UD2
      put(0, std::array<u8, 2>{0x0f, 0x0b});
      continue;
    }
    put(0, std::array<u8, 5>{0xb8, static_cast<u8>(number), 0, 0, 0});
    put(5, call);
    put(static_cast<unsigned>(5 + call.size()), std::array<u8, 1>{0xc3});
  }
  return page;
}

}  // namespace bulkhead::abi::xen
