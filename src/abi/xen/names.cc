#include "abi/xen/names.h"

#include <fmt/format.h>

#include <array>
#include <string_view>

namespace bulkhead::abi::xen {
namespace {
constexpr std::array<std::string_view, 42> kNames = {
    "set_trap_table",
    "mmu_update",
    "set_gdt",
    "stack_switch",
    "set_callbacks",
    "fpu_taskswitch",
    "sched_op_compat",
    "platform_op",
    "set_debugreg",
    "get_debugreg",
    "update_descriptor",
    "",
    "memory_op",
    "multicall",
    "update_va_mapping",
    "set_timer_op",
    "event_channel_op_compat",
    "xen_version",
    "console_io",
    "physdev_op_compat",
    "grant_table_op",
    "vm_assist",
    "update_va_mapping_otherdomain",
    "iret",
    "vcpu_op",
    "set_segment_base",
    "mmuext_op",
    "xsm_op",
    "nmi_op",
    "sched_op",
    "callback_op",
    "xenoprof_op",
    "event_channel_op",
    "physdev_op",
    "hvm_op",
    "sysctl",
    "domctl",
    "kexec_op",
    "tmem_op",
    "argo_op",
    "xenpmu_op",
    "dm_op",
};
}  // namespace

std::string hypercall_name(u64 number) {
  if (number < kNames.size() && !kNames[number].empty()) return std::string{kNames[number]};
  if (number >= kHypercallNumbers) return "hypercall_other";
  return fmt::format("hypercall_{}", number);
}

}  // namespace bulkhead::abi::xen
