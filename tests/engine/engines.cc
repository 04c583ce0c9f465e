#include "tests/engine/engines.h"

#include <cpuid.h>

#include "engine/dbt/dbt_engine.h"
#include "engine/kvm/kvm_engine.h"
#include "engine/probe.h"

namespace bulkhead::engine {
namespace {

// A host that is itself run by QEMU's translator: that does not see code which changes in a guest's guest.
bool host_is_emulated() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  __cpuid(0x40000000, eax, ebx, ecx, edx);
  return ebx == 0x54474354;  // "TCGT"
}

std::string kvm_lacks(Need need) {
  if (need == Need::kModifiedCode && host_is_emulated())
    return "this host's processor is QEMU's translator, which runs old code when a guest changes it";
  const HostEngine kvm = probe_host().of(EngineKind::kKvm);
  if (need == Need::kEveryInstruction && !kvm.usable)
    return "this KVM has no hardware under it and cannot emulate every instruction";
  return {};
}

}  // namespace

const std::vector<EngineUnderTest>& engines_under_test() {
  static const std::vector<EngineUnderTest> engines = {
      {"dbt_interpreter", dbt::make_dbt_engine, {{"dbt.mode", "interpreter"}}},
      {"dbt_translator", dbt::make_dbt_engine, {{"dbt.mode", "translator"}}},
      {"kvm", kvm::make_kvm_engine, {{"kvm.irqchip", "split"}}, kvm_lacks},
      {"kvm_without_xen",
       kvm::make_kvm_engine,
       {{"kvm.xen", "off"}, {"kvm.dirty", "ring"}, {"kvm.irqchip", "split"}},
       kvm_lacks},
      {"kvm_own_controllers", kvm::make_kvm_engine, {{"kvm.irqchip", "kernel"}}, kvm_lacks},
  };
  return engines;
}

}  // namespace bulkhead::engine
