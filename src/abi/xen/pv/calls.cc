// The hypercalls that only PV guests make, but for those of page tables: which there are, and the short ones.
#include <xen/callback.h>
#include <xen/errno.h>
#include <xen/physdev.h>
#include <xen/vcpu.h>
#include <xen/xen.h>

#include <algorithm>

#include "abi/xen/pv/call.h"

namespace bulkhead::abi::xen::pv {
namespace {
constexpr u32 kReservedEntry = 14 * 512;  // FIRST_RESERVED_GDT_ENTRY [xen/arch-x86/xen.h]
}  // namespace

// Callers are always ours: a Domain of a PV guest has no others.
std::optional<Answer> Guest::hypercall(Caller& caller, u64 number, const std::array<u64, 6>& args) {
  Call& call = static_cast<Call&>(caller);
  switch (number) {
    case __HYPERVISOR_iret:
      return call.nested(number) ? Answer{-XEN_ENOSYS} : iret(call.cpu);
    case __HYPERVISOR_vcpu_op:  // the rest is the Domain's
      if (args[0] != VCPUOP_up || args[1] >= vcpus_.size() || vcpus_[args[1]]->initialised) return std::nullopt;
      return Answer{-XEN_EINVAL};
    case __HYPERVISOR_stack_switch:
      call.v.kernel_ss = static_cast<u16>(args[0] | 3);
      call.v.kernel_sp = args[1];
      return Answer{0};
    case __HYPERVISOR_mmu_update:
      return mmu_update(call, args);
    case __HYPERVISOR_mmuext_op:
      return mmuext_op(call, args);
    case __HYPERVISOR_update_va_mapping:
      return update_va_mapping(call, args);
    case __HYPERVISOR_update_va_mapping_otherdomain:
      return args[3] == DOMID_SELF ? update_va_mapping(call, args) : Answer{-XEN_EPERM};
    case __HYPERVISOR_set_segment_base:
      return set_segment_base(call.cpu, args[0], args[1]);
    case __HYPERVISOR_fpu_taskswitch:
      call.cpu.set_task_switched(args[0] != 0);
      return Answer{0};
    case __HYPERVISOR_set_trap_table:
      return set_trap_table(call, args[0]);
    case __HYPERVISOR_set_gdt:
      return set_gdt(call, args[0], args[1]);
    case __HYPERVISOR_update_descriptor:
      return Answer{memory_.write_descriptor(args[0], args[1])};
    case __HYPERVISOR_set_callbacks:
      if (canonical(args[0])) call.v.event = {args[0], true};
      if (canonical(args[1])) call.v.failsafe.address = args[1];
      if (canonical(args[2])) call.v.syscall.address = args[2];
      return Answer{0};
    case __HYPERVISOR_callback_op:
      return callback_op(call, args[0], args[1]);
    case __HYPERVISOR_set_debugreg:
      return Answer{write_debug(call.cpu, args[0], args[1])};
    case __HYPERVISOR_get_debugreg:
      if (args[0] > 7 || args[0] == 4 || args[0] == 5) return Answer{-XEN_EINVAL};
      return Answer{static_cast<i64>(call.cpu.debug_register(static_cast<unsigned>(args[0])))};
    case __HYPERVISOR_physdev_op:
      return physdev_op(call, args[0], args[1]);
    default:
      return std::nullopt;
  }
}

// The list ends with an entry without address; none at all clears the table.
Answer Guest::set_trap_table(Call& call, u64 table) {
  if (table == 0) {
    call.v.traps = {};
    return {0};
  }
  for (unsigned i = 0; i < 512; ++i) {
    trap_info_t info;
    if (!call.get(table + i * sizeof info, info)) return {-XEN_EFAULT};
    if (info.address == 0) return {0};
    if (!canonical(info.address)) return {-XEN_EINVAL};
    call.v.traps[info.vector] = {info.address, static_cast<u16>(info.cs | 3), static_cast<u8>(TI_GET_DPL(&info)),
                                 TI_GET_IF(&info) != 0};
  }
  return {0};
}

// ---- segments

i64 Guest::load_gdt(unsigned vcpu, VcpuRecord& v, std::span<const u64> frames, u32 entries) {
  for (std::size_t i = 0; i < frames.size(); ++i) {
    const i64 error = memory_.take_descriptors(frames[i]);
    if (error == 0) continue;
    for (std::size_t j = 0; j < i; ++j) memory_.put_descriptors(frames[j]);
    return error;
  }
  for (const u64 frame : v.gdt_frames) memory_.put_descriptors(frame);
  v.gdt_frames.assign(frames.begin(), frames.end());
  v.gdt_entries = entries;
  memory_.map_descriptors(vcpu, v.gdt_frames);
  return 0;
}

Answer Guest::set_gdt(Call& call, u64 pointer, u64 entries) {
  if (entries > kReservedEntry) return {-XEN_EINVAL};
  std::array<u64, kGuestDescriptorPages> frames;
  const std::size_t count = (entries + 511) / 512;
  if (!call.get(pointer, std::span{frames}.first(count))) return {-XEN_EFAULT};
  const i64 error = load_gdt(call.cpu.index(), call.v, std::span{frames}.first(count), static_cast<u32>(entries));
  if (error == 0)  // all entries up to Xen's own can be reached; those that are not there fault
    call.cpu.flush_tlb(true);
  return {error};
}

Answer Guest::set_segment_base(Cpu& cpu, u64 which, u64 base) {
  if (which != SEGBASE_GS_USER_SEL && !canonical(base)) return {-XEN_EINVAL};
  switch (which) {
    case SEGBASE_FS:
      cpu.set_base(Cpu::kFs, base);
      return {0};
    case SEGBASE_GS_KERNEL:
      cpu.set_base(Cpu::kGs, base);
      return {0};
    case SEGBASE_GS_USER:
      cpu.hidden_gs_base() = base;
      return {0};
    case SEGBASE_GS_USER_SEL: {
      // The selector's base becomes the users', and the kernel's stays.
      const u64 kernel = cpu.base(Cpu::kGs);
      if (!cpu.load_segment(Cpu::kGs, static_cast<u16>(base))) cpu.load_segment(Cpu::kGs, 0);
      cpu.hidden_gs_base() = cpu.base(Cpu::kGs);
      cpu.set_base(Cpu::kGs, kernel);
      return {0};
    }
    default:
      return {-XEN_EINVAL};
  }
}

// ---- callbacks

i64 Guest::set_callback(VcpuRecord& v, unsigned type, Callback callback) {
  static constexpr auto kCallbacks = [] {
    std::array<Callback VcpuRecord::*, CALLBACKTYPE_syscall32 + 1> all{};
    all[CALLBACKTYPE_event] = &VcpuRecord::event;
    all[CALLBACKTYPE_failsafe] = &VcpuRecord::failsafe;
    all[CALLBACKTYPE_syscall] = &VcpuRecord::syscall;
    all[CALLBACKTYPE_syscall32] = &VcpuRecord::syscall32;
    all[CALLBACKTYPE_sysenter] = &VcpuRecord::sysenter;
    all[CALLBACKTYPE_nmi] = &VcpuRecord::nmi;
    return all;
  }();
  if (!canonical(callback.address)) return -XEN_EINVAL;
  if (type >= kCallbacks.size() || kCallbacks[type] == nullptr) return -XEN_ENOSYS;
  if (type == CALLBACKTYPE_event || type == CALLBACKTYPE_nmi) callback.mask_events = true;
  v.*kCallbacks[type] = callback;
  return 0;
}

Answer Guest::callback_op(Call& call, u64 command, u64 argument) {
  switch (command) {
    case CALLBACKOP_register: {
      callback_register_t request;
      if (!call.get(argument, request)) return {-XEN_EFAULT};
      return {set_callback(call.v, request.type, {request.address, (request.flags & CALLBACKF_mask_events) != 0})};
    }
    case CALLBACKOP_unregister: {
      callback_unregister_t request;
      if (!call.get(argument, request)) return {-XEN_EFAULT};
      if (request.type != CALLBACKTYPE_sysenter && request.type != CALLBACKTYPE_syscall32 &&
          request.type != CALLBACKTYPE_nmi)
        return {request.type <= CALLBACKTYPE_syscall ? -XEN_EINVAL : -XEN_ENOSYS};
      return {set_callback(call.v, request.type, {})};
    }
    default:
      return {-XEN_ENOSYS};
  }
}

// There is no hardware to give: only the guest's own view of I/O privilege is kept.
Answer Guest::physdev_op(Call& call, u64 command, u64 argument) {
  switch (command) {
    case PHYSDEVOP_set_iopl: {
      physdev_set_iopl_t request;
      if (!call.get(argument, request)) return {-XEN_EFAULT};
      if (request.iopl > 3) return {-XEN_EINVAL};
      call.v.iopl = static_cast<u8>(request.iopl);
      return {0};
    }
    case PHYSDEVOP_set_iobitmap:
      return {0};
    case PHYSDEVOP_eoi:
    case PHYSDEVOP_irq_status_query:
    case PHYSDEVOP_get_free_pirq:
    case PHYSDEVOP_pirq_eoi_gmfn_v1:
    case PHYSDEVOP_pirq_eoi_gmfn_v2:
      return {-XEN_EINVAL};
    case PHYSDEVOP_map_pirq:
    case PHYSDEVOP_unmap_pirq:
    case PHYSDEVOP_apic_read:
    case PHYSDEVOP_apic_write:
    case PHYSDEVOP_alloc_irq_vector:
    case PHYSDEVOP_setup_gsi:
    case PHYSDEVOP_pci_device_add:
    case PHYSDEVOP_pci_mmcfg_reserved:
      return {-XEN_EPERM};
    default:
      return {-XEN_ENOSYS};
  }
}

}  // namespace bulkhead::abi::xen::pv
