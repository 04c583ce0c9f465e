// A guest that asks for everything that it may not have, and what it must be told.
#include <stdint.h>
#include <xen/callback.h>
#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/memory.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/version.h>

#include <initializer_list>

#include "checks.h"

namespace testkernel {
namespace {

alignas(4096) unsigned char page[4096], other_page[4096], work[16 * 4096];

template <class T>
T* in_work(u64 offset = 0) {
  return reinterpret_cast<T*>(work + offset);
}
i64 mmu_update(u64 machine, u64 value) {
  const struct mmu_update request{machine, value};
  return hypercall(__HYPERVISOR_mmu_update, address_of(request), 1, 0, DOMID_SELF);
}
u64 past_ram() { return machine_of(reinterpret_cast<void*>(kBase + ((boot_info->nr_pages - 1) << 12))) + 1; }

void foreign_frames() {
  for (u64 i = 80; i < 100; ++i) EXPECT(map(page, (past_ram() + i) << 12 | kFlags) < 0);  // behind the grant frames
  EXPECT(map(page, u64{0xfffffffff} << 12 | kFlags) < 0);
  EXPECT(map(page, u64{0xfffffffff} << 12 | kReadOnly) < 0);
  for (const u64 other : {u64{0}, u64{DOMID_IO}, u64{DOMID_XEN}, u64{7}}) {
    const struct mmu_update request{machine_address(page), 0};
    EXPECT(hypercall(__HYPERVISOR_mmu_update, address_of(request), 1, 0, other) < 0);
  }
}

void page_tables_stay_read_only() {
  u64* const root = reinterpret_cast<u64*>(boot_info->pt_base);
  EXPECT(map_self(root, kFlags) < 0);
  EXPECT(map(page, machine_of(root) << 12 | kFlags) < 0);
  EXPECT(faults([&] { *const_cast<volatile u64*>(&root[0]) = 0; }) == 14);
  u64* const leaf = entry_of(reinterpret_cast<u64>(page), 1);
  const u64 entry = *leaf;
  EXPECT(faults([&] { *const_cast<volatile u64*>(leaf) = entry & ~kWritable; }) == -1);  // a writable page table
  EXPECT(*leaf == (entry & ~kWritable));
  EXPECT(faults([&] { *const_cast<volatile u64*>(leaf) = machine_of(root) << 12 | kFlags; }) == 14);
  EXPECT(faults([&] { *const_cast<volatile u64*>(leaf) = entry; }) == -1);
}

void pinning_nonsense() {
  for (u64& word : *in_work<u64[512]>()) word = 0x5a5a5a5a5a5a5a5b;
  EXPECT(map_self(work, kReadOnly) == 0);
  for (const unsigned command : {MMUEXT_PIN_L1_TABLE, MMUEXT_PIN_L2_TABLE, MMUEXT_PIN_L3_TABLE, MMUEXT_PIN_L4_TABLE}) {
    EXPECT(mmuext(command, machine_of(work)) < 0);
    EXPECT(mmuext(command, past_ram()) < 0);
    EXPECT(mmuext(command, ~u64{0}) < 0);
  }
  EXPECT(mmuext(MMUEXT_UNPIN_TABLE, machine_of(work)) < 0);
  EXPECT(mmuext(MMUEXT_NEW_BASEPTR, machine_of(work)) < 0);
  EXPECT(mmuext(MMUEXT_NEW_USER_BASEPTR, past_ram()) < 0);
  EXPECT(map_self(work, kFlags) == 0);  // nothing relies on it
}

void linear_tables() {
  u64* const root = reinterpret_cast<u64*>(boot_info->pt_base);
  EXPECT(mmu_update(machine_address(&root[0]), machine_of(root) << 12 | kFlags) < 0);
  for (unsigned slot = 256; slot < 272; ++slot) EXPECT(mmu_update(machine_address(&root[slot]), 0) < 0);
  u64* const middle = entry_of(kBase, 2);
  EXPECT(mmu_update(machine_address(middle + 511), machine_of(middle) << 12 | kFlags) < 0);
}

void large_pages() {
  u64* const middle = entry_of(kBase, 2);
  EXPECT(mmu_update(machine_address(middle + 511), kFlags | kLarge) < 0);
  EXPECT(mmu_update(machine_address(entry_of(kBase, 3) + 1), kFlags | kLarge) < 0);
  EXPECT(map(page, machine_of(page) << 12 | kFlags | kLarge) < 0);  // PAT
}

void hypervisors_area() {
  EXPECT(faults([] { *reinterpret_cast<volatile u64*>(kMachineToPhysical) = 0; }) == 14);
  EXPECT(faults([] { (void)*reinterpret_cast<volatile u64*>(0xffff820000000000); }) == 14);
  EXPECT(faults([] { *reinterpret_cast<volatile u64*>(0xffff820000000000 + 14 * 4096) = 0; }) == 14);
  EXPECT(faults([] { (void)*reinterpret_cast<volatile u64*>(0xffff87fffffff000); }) == 14);
  EXPECT(hypercall(__HYPERVISOR_xen_version, XENVER_extraversion, kMachineToPhysical) < 0);
}

void descriptors() {
  EXPECT(map_self(work, kFlags) == 0);
  for (u64& word : *in_work<u64[512]>()) word = 0;
  in_work<u64>()[3] = 0x0000ec0000080000;  // a call gate
  EXPECT(map_self(work, kReadOnly) == 0);
  u64 frames[2] = {machine_of(work), machine_of(page)};
  EXPECT(hypercall(__HYPERVISOR_set_gdt, address_of(frames), 512) < 0);
  EXPECT(map_self(work, kFlags) == 0);
  in_work<u64>()[3] = 0x00cf93000000ffff;
  EXPECT(hypercall(__HYPERVISOR_set_gdt, address_of(frames), 512) < 0);  // still writable
  EXPECT(map_self(work, kReadOnly) == 0);
  EXPECT(hypercall(__HYPERVISOR_set_gdt, address_of(frames), 512) == 0);
  EXPECT(in_work<u64>()[3] == 0x00cff3000000ffff);
  EXPECT(hypercall(__HYPERVISOR_update_descriptor, machine_address(work + 8), 0x0000ec0000080000) < 0);
  EXPECT(hypercall(__HYPERVISOR_update_descriptor, machine_address(work + 8), 0x00008900deadbeef) < 0);
  EXPECT(map_self(work, kFlags) < 0);
  EXPECT(faults([] { asm volatile("mov %0, %%ds" ::"r"(3 * 8 + 3)); }) == -1);
  EXPECT(faults([] { asm volatile("mov %0, %%ds" ::"r"(5 * 8 + 3)); }) == 13);
  EXPECT(hypercall(__HYPERVISOR_set_gdt, address_of(frames), 14 * 512 + 1) < 0);
  EXPECT(mmuext(MMUEXT_SET_LDT, 0xffff820000000000, 8) < 0);
  EXPECT(mmuext(MMUEXT_SET_LDT, reinterpret_cast<u64>(page), 8) < 0);  // writable
  asm volatile("mov %0, %%ds" ::"r"(0));
  EXPECT(hypercall(__HYPERVISOR_set_gdt, 0, 0) == 0);
  EXPECT(map_self(work, kFlags) == 0);
}

void addresses_that_are_not_canonical() {
  for (const u64 which : {SEGBASE_FS, SEGBASE_GS_USER, SEGBASE_GS_KERNEL})
    EXPECT(hypercall(__HYPERVISOR_set_segment_base, which, kNotCanonical) < 0);
  callback_register_t callback{CALLBACKTYPE_event, 0, kNotCanonical};
  EXPECT(operation(__HYPERVISOR_callback_op, CALLBACKOP_register, callback) < 0);
  const long fault = faults([] {
    static iret_context frame;
    frame = {};
    frame.rip = kNotCanonical;
    frame.cs = FLAT_KERNEL_CS & ~3u;
    frame.ss = FLAT_KERNEL_SS;
    frame.rsp = reinterpret_cast<u64>(other_page + sizeof other_page);
    return_to(&frame);
  });
  EXPECT(fault == 13 || fault == 14);
  EXPECT(faults([] { asm volatile("wrmsr" ::"c"(0xc0000100), "a"(0), "d"(0x8000)); }) == 13);
  EXPECT(faults([] { asm volatile("jmp *%0" ::"r"(kNotCanonical)); }) == 13);
}

void bad_pointers() {
  for (u64 number = 0; number < 64; ++number) {
    if (number == __HYPERVISOR_iret) continue;
    const auto ends = [&](u64 command) {  // or leaves us without handlers
      return (number == __HYPERVISOR_sched_op && command <= SCHEDOP_block) ||
             (number == __HYPERVISOR_set_trap_table && command == 0);
    };
    for (const u64 bad : {u64{1}, kMachineToPhysical, u64{0xffff820000000000}, kNotCanonical, ~u64{0}}) {
      if (!ends(bad)) hypercall(number, bad, bad, bad, bad, bad);
      for (u64 command = 0; command < 48; ++command)
        if (!ends(command)) hypercall(number, command, bad, bad, DOMID_SELF, bad);
    }
  }
  hypercall(__HYPERVISOR_set_callbacks, 0, 0, 0);
  for (unsigned i = 0; i < 4; ++i) hypercall(__HYPERVISOR_set_debugreg, i, 0);
  hypercall(__HYPERVISOR_fpu_taskswitch, 0);
  EXPECT(hypercall(__HYPERVISOR_xen_version, XENVER_version) == (4 << 16 | 17));
}

void multicalls() {
  auto* const entries = in_work<multicall_entry_t>();
  entries[0] = {__HYPERVISOR_multicall, 0, {reinterpret_cast<u64>(entries), 1}};
  entries[1] = {__HYPERVISOR_iret, 0, {}};
  entries[2] = {__HYPERVISOR_xen_version, 0, {XENVER_version, 0}};
  EXPECT(hypercall(__HYPERVISOR_multicall, reinterpret_cast<u64>(entries), 3) == 0);
  EXPECT(static_cast<i64>(entries[0].result) < 0);
  EXPECT(static_cast<i64>(entries[1].result) < 0);
  EXPECT(entries[2].result == (4 << 16 | 17));
  EXPECT(hypercall(__HYPERVISOR_multicall, reinterpret_cast<u64>(entries), ~0u) < 0);
}

// Many updates in one call: each validates a table and lets it go again.
void huge_updates() {
  constexpr u64 kCount = sizeof work / sizeof(struct mmu_update);
  u64* const middle = entry_of(kBase, 2);
  for (u64& word : *reinterpret_cast<u64(*)[512]>(other_page)) word = 0;
  EXPECT(map_self(other_page, kReadOnly) == 0);
  for (u64 i = 0; i < kCount; ++i)
    in_work<struct mmu_update>()[i] = {machine_address(middle + 511),
                                       i % 2 == 0 ? machine_of(other_page) << 12 | kFlags : 0};
  unsigned done = 0;
  for (int round = 0; round < 20; ++round)
    EXPECT(hypercall(__HYPERVISOR_mmu_update, reinterpret_cast<u64>(work), kCount, address_of(done), DOMID_SELF) == 0);
  EXPECT(done == kCount);
  EXPECT(map_self(other_page, kFlags) == 0);
  EXPECT(hypercall(__HYPERVISOR_mmu_update, reinterpret_cast<u64>(work), 1u << 30, address_of(done), DOMID_SELF) < 0);
}

void debug_registers() {
  const auto set = [](u64 index, u64 value) { return hypercall(__HYPERVISOR_set_debugreg, index, value); };
  EXPECT(set(0, kMachineToPhysical) < 0);
  EXPECT(set(0, kNotCanonical) < 0);
  EXPECT(set(7, 2u << 16 | 1) < 0);
  EXPECT(set(4, 0) < 0 && set(5, 0) < 0 && set(9, 0) < 0);
  static volatile int watched;
  EXPECT(set(0, address_of(watched)) == 0 && set(7, 1 | 0xdu << 16) == 0);
  EXPECT(faults([] { watched = 1; }) == 1);
  EXPECT(set(7, 0) == 0);
  EXPECT(faults([] { watched = 2; }) == -1);
}

void grants() {
  gnttab_setup_table_t setup{};
  setup.dom = DOMID_SELF;
  setup.nr_frames = 1u << 20;
  set_xen_guest_handle(setup.frame_list, in_work<xen_pfn_t>());
  const i64 result = operation(__HYPERVISOR_grant_table_op, GNTTABOP_setup_table, setup);
  EXPECT(result < 0 || setup.status < 0);
  for (const unsigned handle : {0u, 1u, 0x7fffffffu, ~0u})
    for (int twice = 0; twice < 2; ++twice) {
      gnttab_unmap_grant_ref_t unmap{};
      unmap.host_addr = machine_address(page);
      unmap.handle = handle;
      EXPECT(operation(__HYPERVISOR_grant_table_op, GNTTABOP_unmap_grant_ref, unmap) < 0 || unmap.status < 0);
    }
  for (const unsigned reference : {3u, 0x7fffffffu, ~0u}) {
    gnttab_copy_t copy{};
    copy.source.u.ref = reference;
    copy.source.domid = DOMID_SELF;
    copy.dest.u.gmfn = machine_of(page);
    copy.dest.domid = DOMID_SELF;
    copy.len = 16;
    copy.flags = GNTCOPY_source_gref;
    EXPECT(operation(__HYPERVISOR_grant_table_op, GNTTABOP_copy, copy) < 0 || copy.status < 0);
  }
}

void memory_comes_and_goes() {
  xen_pfn_t frame = machine_of(page);
  xen_memory_reservation_t reservation{};
  set_xen_guest_handle(reservation.extent_start, &frame);
  reservation.nr_extents = 1;
  reservation.domid = DOMID_SELF;
  const auto give = [&] { return operation(__HYPERVISOR_memory_op, XENMEM_decrease_reservation, reservation); };
  EXPECT(give() == 0);  // it is mapped
  frame = machine_of(reinterpret_cast<void*>(boot_info->pt_base));
  EXPECT(give() == 0);
  frame = past_ram();
  EXPECT(give() == 0);
  frame = machine_of(page);
  EXPECT(map(page, 0) == 0);
  EXPECT(give() == 1);
  EXPECT(give() == 0);
  EXPECT(map(page, frame << 12 | kFlags) < 0);
  frame = (reinterpret_cast<u64>(page) - kBase) >> 12;  // now a physical one
  EXPECT(operation(__HYPERVISOR_memory_op, XENMEM_populate_physmap, reservation) == 1);
  EXPECT(map(page, frame << 12 | kFlags) == 0);
  EXPECT(*reinterpret_cast<volatile u64*>(page) == 0);
  reinterpret_cast<u64*>(boot_info->mfn_list)[(reinterpret_cast<u64>(page) - kBase) >> 12] = frame;
}

void vcpus() {
  EXPECT(hypercall(__HYPERVISOR_vcpu_op, VCPUOP_up, 1) < 0);  // never initialised
  EXPECT(hypercall(__HYPERVISOR_vcpu_op, VCPUOP_up, 99) < 0);
  auto* const context = in_work<vcpu_guest_context_t>();
  for (u64 i = 0; i < sizeof *context; ++i) work[i] = 0;
  const auto initialise = [&](u64 vcpu) {
    return hypercall(__HYPERVISOR_vcpu_op, VCPUOP_initialise, vcpu, reinterpret_cast<u64>(context));
  };
  context->ctrlreg[3] = past_ram() << 12;
  EXPECT(initialise(0) < 0);
  EXPECT(initialise(1) < 0);
  context->ctrlreg[3] = machine_address(reinterpret_cast<void*>(boot_info->pt_base));
  context->flags = VGCF_in_kernel;
  context->user_regs.rip = kNotCanonical;
  EXPECT(initialise(1) < 0);
}

void event_storm() {
  evtchn_bind_ipi_t bind{0, 0};
  EXPECT(operation(__HYPERVISOR_event_channel_op, EVTCHNOP_bind_ipi, bind) == 0);
  evtchn_send_t send{bind.port};
  for (int i = 0; i < 20000; ++i) EXPECT(operation(__HYPERVISOR_event_channel_op, EVTCHNOP_send, send) == 0);
  evtchn_close_t close{bind.port};
  EXPECT(operation(__HYPERVISOR_event_channel_op, EVTCHNOP_close, close) == 0);
  EXPECT(operation(__HYPERVISOR_event_channel_op, EVTCHNOP_close, close) < 0);
  EXPECT(operation(__HYPERVISOR_event_channel_op, EVTCHNOP_send, send) < 0);
  send.port = ~0u;
  EXPECT(operation(__HYPERVISOR_event_channel_op, EVTCHNOP_send, send) < 0);
}

void instructions() {
  EXPECT(faults([] { asm volatile("inb $0x60, %%al" ::: "eax"); }) == 13);
  EXPECT(faults([] { asm volatile("hlt"); }) == 13);
  EXPECT(faults([] { asm volatile("rdmsr" ::"c"(0xc0010015) : "eax", "edx"); }) == 13);
  EXPECT(faults([] { asm volatile("mov %0, %%cr0" ::"r"(0x11l)); }) == 13);
  EXPECT(faults([] { asm volatile("mov %0, %%cr3" ::"r"(past_ram() << 12)); }) == 13);
  EXPECT(faults([] { asm volatile("lidt %0" ::"m"(page)); }) == 13);
  EXPECT(faults([] { asm volatile("int $0x80"); }) == 128);
  EXPECT(faults([] { asm volatile("int $0x81"); }) == 13);
  EXPECT(faults([] { asm volatile("ud2"); }) == 6);
  unsigned eax = 0x40000000, ebx, ecx = 0, edx;
  asm volatile(".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e; cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
  EXPECT(ebx == 0x566e6558);  // "XenV"
}

constexpr Check kChecks[] = {
    {"foreign frames", foreign_frames},
    {"page tables stay read-only", page_tables_stay_read_only},
    {"pinning nonsense", pinning_nonsense},
    {"linear tables", linear_tables},
    {"large pages", large_pages},
    {"hypervisor's area", hypervisors_area},
    {"descriptors", descriptors},
    {"addresses that are not canonical", addresses_that_are_not_canonical},
    {"bad pointers", bad_pointers},
    {"multicalls", multicalls},
    {"huge updates", huge_updates},
    {"debug registers", debug_registers},
    {"grants", grants},
    {"memory comes and goes", memory_comes_and_goes},
    {"vCPUs", vcpus},
    {"event storm", event_storm},
    {"instructions", instructions},
};

}  // namespace

unsigned check_refusals() { return run(kChecks); }

void measure_null_hypercall() {
  constexpr u64 kCalls = 1'000'000;
  if (map(page, boot_info->shared_info | kFlags) != 0) return put("cannot map the shared info\n");
  const auto& time = reinterpret_cast<const volatile shared_info_t*>(page)->vcpu_info[0].time;
  const u64 multiplier = time.tsc_to_system_mul;
  const int shift = time.tsc_shift;
  u64 least = ~u64{0};
  for (int round = 0; round < 5; ++round) {
    const u64 before = __builtin_ia32_rdtsc();
    for (u64 i = 0; i < kCalls; ++i) hypercall(__HYPERVISOR_xen_version, XENVER_version);
    const u64 ticks = __builtin_ia32_rdtsc() - before;
    if (ticks < least) least = ticks;
  }
  const u64 scaled = shift < 0 ? least >> -shift : least << shift;
  const u64 ns = static_cast<u64>(static_cast<unsigned __int128>(scaled) * multiplier >> 32);
  put("null hypercall ");
  put_number(static_cast<i64>(ns * 10 / kCalls / 10));
  put(".");
  put_number(static_cast<i64>(ns * 10 / kCalls % 10));
  put(" ns\n");
}

}  // namespace testkernel
