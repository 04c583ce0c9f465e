// Hypercalls that only PV guests make, with arguments that no kernel would give.
#include <gtest/gtest.h>
#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/memory.h>
#include <xen/physdev.h>
#include <xen/vcpu.h>

#include <thread>

#include "abi/xen/pv/testing/small_machine.h"

namespace bulkhead::abi::xen::pv {
namespace {

using namespace testing;
using Cpu = engine::DeprivilegedCpu;

constexpr u64 kNotCanonical = u64{1} << 47;
constexpr u64 kBadPointers[] = {
    1,       kHypervisor, kHypervisor - 1, kPerDomainStart, kHypervisor + (u64{16} << 39) - 8, kNotCanonical,
    ~u64{0}, ~u64{0} - 4};

struct CallsTest : ::testing::Test, SmallMachine {
  void expect_frame_can_leave(u64 frame) {
    mmu_update(kL1 << kPageShift | frame * 8, 0);
    EXPECT_EQ(tables.release(frame), 0) << frame;
  }
};

TEST_F(CallsTest, UnknownOnesAreCountedAndAnswered) {
  for (const u64 number : {u64{11}, u64{27}, u64{38}, u64{47}, u64{63}, u64{64}, ~u64{0}, u64{1} << 32})
    EXPECT_EQ(call(number), -XEN_ENOSYS) << number;
  EXPECT_EQ(domain.counters()[0].value(), 8u);
}

TEST_F(CallsTest, BadPointersEverywhere) {
  for (const u64 bad : kBadPointers) {
    EXPECT_EQ(call(__HYPERVISOR_mmu_update, {bad, 1, 0, DOMID_SELF}), -XEN_EFAULT);
    EXPECT_EQ(call(__HYPERVISOR_mmu_update, {address(20), 0, bad, DOMID_SELF}), -XEN_EFAULT);
    EXPECT_EQ(call(__HYPERVISOR_mmuext_op, {bad, 1, 0, DOMID_SELF}), -XEN_EFAULT);
    EXPECT_EQ(call(__HYPERVISOR_mmuext_op, {address(20), 0, bad, DOMID_SELF}), -XEN_EFAULT);
    EXPECT_EQ(call(__HYPERVISOR_set_trap_table, {bad}), -XEN_EFAULT);
    EXPECT_EQ(call(__HYPERVISOR_set_gdt, {bad, 512}), -XEN_EFAULT);
    EXPECT_EQ(call(__HYPERVISOR_callback_op, {CALLBACKOP_register, bad}), -XEN_EFAULT);
    EXPECT_EQ(call(__HYPERVISOR_callback_op, {CALLBACKOP_unregister, bad}), -XEN_EFAULT);
    EXPECT_EQ(call(__HYPERVISOR_physdev_op, {PHYSDEVOP_set_iopl, bad}), -XEN_EFAULT);
    EXPECT_EQ(call(__HYPERVISOR_multicall, {bad, 1}), -XEN_EFAULT);
    EXPECT_EQ(call(__HYPERVISOR_vcpu_op, {VCPUOP_initialise, 1, bad}), -XEN_EFAULT);
    EXPECT_LT(call(__HYPERVISOR_update_va_mapping, {address(20), table(kL1)[20], (bad & ~u64{3}) | UVMF_TLB_FLUSH}),
              bad < 8 ? 1 : 0);
    struct mmuext_op op{};
    op.cmd = MMUEXT_TLB_FLUSH_MULTI;
    op.arg2.src_mfn = bad;
    at<struct mmuext_op>(kFirstFree) = op;
    EXPECT_EQ(call(__HYPERVISOR_mmuext_op, {address(kFirstFree), 1, 0, DOMID_SELF}), -XEN_EFAULT) << std::hex << bad;
  }
  EXPECT_GT(counter(Guest::kBadPointers), 60u);
  EXPECT_TRUE(ends.empty());
}

// ---- page tables

TEST_F(CallsTest, MappingWhatIsNotTheGuests) {
  const u64 entry = kL1 << kPageShift | 100 * 8;
  for (const u64 frame :
       {layout.tables, layout.machine_to_physical, layout.descriptors, layout.all_frames, u64{1} << 39})
    for (const u64 flags : {kFlags, kReadOnly}) {
      EXPECT_LT(mmu_update(entry, make_entry(frame, flags)), 0) << frame;
      EXPECT_LT(call(__HYPERVISOR_update_va_mapping, {address(100), make_entry(frame, flags), 0}), 0);
    }
  EXPECT_EQ(mmu_update(entry, make_entry(layout.shared_info, kFlags)), 0);
  EXPECT_EQ(tables.counters()[PageTables::kRefusedUpdates].value(), 20u);
}

TEST_F(CallsTest, OtherDomainsAreNotReached) {
  at<struct mmu_update>(20) = {kL1 << kPageShift | 100 * 8, 0};
  for (const u64 other : {u64{0}, u64{2}, u64{DOMID_IO}, u64{DOMID_XEN}, u64{DOMID_COW}, u64{3} << 16 | DOMID_SELF}) {
    EXPECT_EQ(call(__HYPERVISOR_mmu_update, {address(20), 1, 0, other}), -XEN_ESRCH);
    EXPECT_LT(call(__HYPERVISOR_update_va_mapping_otherdomain, {address(100), 0, 0, other}), 0);
    if ((other & 0xffff) != DOMID_SELF) {
      EXPECT_LT(call(__HYPERVISOR_mmuext_op, {address(20), 1, 0, other}), 0);
    }
  }
  EXPECT_NE(table(kL1)[100], 0u);
}

TEST_F(CallsTest, UpdatesAreCountedUpToTheFirstThatFails) {
  auto* const updates = &at<struct mmu_update>(20);
  for (u64 i = 0; i < 4; ++i)
    updates[i] = {kL1 << kPageShift | (100 + i) * 8, i == 2 ? make_entry(layout.tables, kFlags) : 0};
  EXPECT_LT(call(__HYPERVISOR_mmu_update, {address(20), 4, address(21), DOMID_SELF}), 0);
  EXPECT_EQ(at<u32>(21), 2u);
  EXPECT_EQ(table(kL1)[101], 0u);
  EXPECT_NE(table(kL1)[103], 0u);
}

TEST_F(CallsTest, HugeListsGoOnInSlices) {
  // All entries of the list are one page of updates, mapped again and again.
  const u64 kList = u64{1} << 30, kPages = 256, kCount = kPages * 256;
  const u64 l2 = 30, l3 = 31, first_l1 = 32;
  for (u64 i = 0; i < kPages; ++i) {
    table(first_l1 + i / 512)[i % 512] = make_entry(20, kReadOnly);
  }
  for (const u64 t : {l2, l3, first_l1}) ASSERT_EQ(mmu_update(kL1 << kPageShift | t * 8, make_entry(t, kReadOnly)), 0);
  table(l3)[1] = make_entry(l2, kFlags);
  table(l2)[0] = make_entry(first_l1, kFlags);
  ASSERT_EQ(mmu_update(kL4 << kPageShift, make_entry(l3, kFlags)), 0);
  for (u64 i = 0; i < 256; ++i) (&at<struct mmu_update>(20))[i] = {(200 + i % 2) << kPageShift, i};
  calls_made = 0;
  EXPECT_EQ(call(__HYPERVISOR_mmu_update, {kList, kCount, address(21), DOMID_SELF}), 0);
  EXPECT_EQ(at<u32>(21), kCount);
  EXPECT_EQ(calls_made, 1u);
  // Each of these validates a table and lets it go again.
  for (u64 i = 0; i < 256; ++i)
    (&at<struct mmu_update>(20))[i] = {kL2 << kPageShift | 5 * 8, i % 2 == 0 ? make_entry(first_l1 + 1, kFlags) : 0};
  ASSERT_EQ(mmu_update(kL1 << kPageShift | (first_l1 + 1) * 8, make_entry(first_l1 + 1, kReadOnly)), 0);
  calls_made = 0;
  EXPECT_EQ(call(__HYPERVISOR_mmu_update, {kList, kCount, address(21), DOMID_SELF}), 0);
  EXPECT_EQ(at<u32>(21), kCount);
  EXPECT_GT(calls_made, 5u);
  // Within a multicall there is an end.
  auto* const entries = &at<multicall_entry_t>(22);
  for (u64 i = 0; i < 80; ++i) entries[i] = {__HYPERVISOR_mmu_update, 0, {kList, kCount, 0, DOMID_SELF}};
  EXPECT_EQ(call(__HYPERVISOR_multicall, {address(22), 80}), 0);
  EXPECT_EQ(entries[0].result, 0u);
  EXPECT_EQ(static_cast<i64>(entries[79].result), -XEN_EAGAIN);
  EXPECT_EQ(call(__HYPERVISOR_mmu_update, {kList, u64{1} << 30, 0, DOMID_SELF}), -XEN_EINVAL);
}

TEST_F(CallsTest, NestedAndHugeMulticalls) {
  auto* const entries = &at<multicall_entry_t>(22);
  entries[0] = {__HYPERVISOR_multicall, 0, {address(22), 1}};
  EXPECT_EQ(call(__HYPERVISOR_multicall, {address(22), 1}), 0);
  EXPECT_EQ(static_cast<i64>(entries[0].result), -XEN_EINVAL);
  EXPECT_EQ(call(__HYPERVISOR_multicall, {address(22), 1u << 31}), -XEN_E2BIG);
}

TEST_F(CallsTest, NewRoots) {
  EXPECT_LT(mmuext(MMUEXT_NEW_BASEPTR, kL3), 0);
  EXPECT_LT(mmuext(MMUEXT_NEW_BASEPTR, layout.tables), 0);
  EXPECT_LT(mmuext(MMUEXT_NEW_BASEPTR, ~u64{0}), 0);
  EXPECT_LT(mmuext(MMUEXT_NEW_USER_BASEPTR, kL1), 0);
  EXPECT_LT(mmuext(MMUEXT_NEW_USER_BASEPTR, layout.shared_info), 0);
  EXPECT_EQ(cpu.kernel_root, kL4 << 12);
  EXPECT_EQ(mmuext(MMUEXT_NEW_USER_BASEPTR, kL4), 0);
  EXPECT_EQ(cpu.user_root, kL4 << 12);
  EXPECT_EQ(mmuext(MMUEXT_UNPIN_TABLE, kL4), 0);
  EXPECT_EQ(mmuext(MMUEXT_UNPIN_TABLE, kL4), -XEN_EINVAL);
  EXPECT_EQ(mmuext(MMUEXT_NEW_USER_BASEPTR, 0), 0);
  EXPECT_LT(mmu_update(kL1 << kPageShift | kL4 * 8, make_entry(kL4, kFlags)), 0);  // a vCPU runs on it
}

TEST_F(CallsTest, OtherMmuextOperations) {
  for (const unsigned command :
       {MMUEXT_FLUSH_CACHE, MMUEXT_FLUSH_CACHE_GLOBAL, MMUEXT_MARK_SUPER, MMUEXT_UNMARK_SUPER, 77})
    EXPECT_LT(mmuext(command, 20, 21), 0);
  EXPECT_EQ(mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0), 0);
  EXPECT_EQ(mmuext(MMUEXT_INVLPG_LOCAL, kNotCanonical), 0);
  EXPECT_EQ(mmuext(MMUEXT_TLB_FLUSH_ALL, 0), 0);
  at<u64>(30) = 2;
  const unsigned before = cpu.full_flushes;
  EXPECT_EQ(mmuext(MMUEXT_TLB_FLUSH_MULTI, 0, address(30)), 0);
  EXPECT_EQ(cpu.flushed_others.back() & 3, 2u);
  EXPECT_EQ(cpu.full_flushes, before);
  EXPECT_LT(mmuext(MMUEXT_CLEAR_PAGE, kL1), 0);
  EXPECT_LT(mmuext(MMUEXT_COPY_PAGE, 30, layout.tables), 0);
  EXPECT_LT(mmuext(MMUEXT_COPY_PAGE, layout.shared_info, 30), 0);
}

TEST_F(CallsTest, UpdateVaMapping) {
  EXPECT_EQ(call(__HYPERVISOR_update_va_mapping, {address(100), 0, UVMF_INVLPG | UVMF_LOCAL}), 0);
  EXPECT_EQ(table(kL1)[100], 0u);
  EXPECT_EQ(cpu.flushed_pages.back(), address(100));
  for (const u64 linear : {u64{0}, kHypervisor, kPerDomainStart, kNotCanonical})
    EXPECT_EQ(call(__HYPERVISOR_update_va_mapping, {linear, 0, 0}), -XEN_EINVAL);
}

// ---- what is forgotten, and when a flush has nothing to do

constexpr u64 kDataFlags = kFlags | kNoExecute;

TEST_F(CallsTest, LostDataIsForgottenAtOnceAndItsFlushIsFree) {
  mmu_update(kL1 << kPageShift | 100 * 8, make_entry(100, kDataFlags));
  mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0);
  cpu.forgotten.clear();
  const unsigned before = cpu.full_flushes;
  const std::size_t pages = cpu.flushed_pages.size();
  for (const u64 less : {kDataFlags & ~kDirty, kDataFlags & ~(kDirty | kWritable), u64{0}})
    EXPECT_EQ(mmu_update(kL1 << kPageShift | 100 * 8, less == 0 ? 0 : make_entry(100, less)), 0);
  EXPECT_EQ(cpu.forgotten, std::vector<u64>(3, u64{100} << kPageShift | 100));
  EXPECT_EQ(mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0), 0);
  EXPECT_EQ(mmuext(MMUEXT_INVLPG_LOCAL, address(100)), 0);
  EXPECT_EQ(cpu.full_flushes, before);
  EXPECT_EQ(cpu.flushed_pages.size(), pages);
}

TEST_F(CallsTest, WhatGainsIsNotForgotten) {
  mmu_update(kL1 << kPageShift | 100 * 8, make_entry(100, kReadOnly | kNoExecute));
  cpu.forgotten.clear();
  mmu_update(kL1 << kPageShift | 100 * 8, make_entry(100, kDataFlags));
  EXPECT_TRUE(cpu.forgotten.empty());
}

TEST_F(CallsTest, LostCodeTablesAndOthersLossesAreForgottenByTheFlush) {
  const auto flushes_for = [&](auto change) {
    mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0);
    const unsigned before = cpu.full_flushes;
    change();
    mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0);
    mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0);
    return cpu.full_flushes - before;
  };
  const auto set = [&](u64 table, u64 index, u64 value, unsigned vcpu = 0) {
    at<struct mmu_update>(kFirstFree) = {table << kPageShift | index * 8, value};
    EXPECT_EQ(call(__HYPERVISOR_mmu_update, {address(kFirstFree), 1, 0, DOMID_SELF}, vcpu), 0);
  };
  EXPECT_EQ(flushes_for([] {}), 0u);
  EXPECT_EQ(flushes_for([&] { set(kL1, 100, 0); }), 1u);  // code could run there
  EXPECT_EQ(flushes_for([&] { set(kL1, 101, make_entry(102, kDataFlags)); }), 1u);
  set(kL2, 7, make_entry(kL1, kFlags));
  EXPECT_EQ(flushes_for([&] { set(kL2, 7, 0); }), 1u);
  set(kL1, 40, make_entry(40, kReadOnly));
  set(kL2, 7, make_entry(40, kFlags));  // a table with nothing in it
  EXPECT_EQ(flushes_for([&] { set(kL2, 7, 0); }), 0u);
  set(kL1, 103, make_entry(103, kDataFlags));
  cpus[1].kernel_root = cpu.kernel_root;
  EXPECT_EQ(flushes_for([&] { set(kL1, 103, 0, 1); }), 1u);
}

// A vCPU whose translations may be old is asked to stop writing to what becomes a table; one that knows all is not.
TEST_F(CallsTest, OnlyWhoMayStillWriteIsAskedToStop) {
  constexpr u64 kNew = 200;
  mmu_update(kL1 << kPageShift | kNew * 8, make_entry(kNew, kDataFlags));
  mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0);
  mmu_update(kL1 << kPageShift | kNew * 8, make_entry(kNew, kReadOnly | kNoExecute));
  EXPECT_EQ(mmuext(MMUEXT_PIN_L1_TABLE, kNew), 0);
  ASSERT_FALSE(partition.stopped_writes.empty());
  EXPECT_EQ(partition.stopped_writes.back(), kNew);
  EXPECT_EQ(partition.innocent & 3, 1u);
}

// ---- segments

TEST_F(CallsTest, Gdt) {
  ASSERT_EQ(mmu_update(kL1 << kPageShift | 40 * 8, make_entry(40, kReadOnly)), 0);
  at<u64>(21) = 40;
  EXPECT_EQ(call(__HYPERVISOR_set_gdt, {address(21), 512}), 0);
  EXPECT_LT(call(__HYPERVISOR_set_gdt, {address(21), 14 * 512 + 1}), 0);
  EXPECT_LT(call(__HYPERVISOR_set_gdt, {address(21), ~u64{0}}), 0);
  EXPECT_LT(mmu_update(kL1 << kPageShift | 40 * 8, make_entry(40, kFlags)), 0);
  EXPECT_EQ(call(__HYPERVISOR_update_descriptor, {40 << kPageShift | 8, 0x00cf93000000ffff}), 0);
  EXPECT_LT(call(__HYPERVISOR_update_descriptor, {40 << kPageShift | 8, 0x0000ec0000080000}), 0);
  EXPECT_LT(call(__HYPERVISOR_update_descriptor, {layout.descriptors << kPageShift, 0}), 0);
  EXPECT_LT(call(__HYPERVISOR_update_descriptor, {kL1 << kPageShift, 0}), 0);
  EXPECT_EQ(table(40)[1], 0x00cff3000000ffffu);
  // A list whose second frame cannot be: nothing is kept of it, and the old table stays.
  ASSERT_EQ(mmu_update(kL1 << kPageShift | 41 * 8, make_entry(41, kReadOnly)), 0);
  (&at<u64>(21))[0] = 41;
  for (const u64 bad : {u64{kL1}, layout.descriptors, layout.tables, ~u64{0}, u64{42} /* writable */}) {
    (&at<u64>(21))[1] = bad;
    EXPECT_LT(call(__HYPERVISOR_set_gdt, {address(21), 1024}), 0);
    EXPECT_EQ(mmu_update(kL1 << kPageShift | 41 * 8, make_entry(41, kFlags)), 0);
    EXPECT_EQ(mmu_update(kL1 << kPageShift | 41 * 8, make_entry(41, kReadOnly)), 0);
    EXPECT_LT(mmu_update(kL1 << kPageShift | 40 * 8, make_entry(40, kFlags)), 0);
  }
  EXPECT_EQ(call(__HYPERVISOR_set_gdt, {0, 0}), 0);
  expect_frame_can_leave(40);
}

TEST_F(CallsTest, BothVcpusMayUseOneGdt) {
  cpus[1].kernel_root = kL4 << 12;
  ASSERT_EQ(mmu_update(kL1 << kPageShift | 40 * 8, make_entry(40, kReadOnly)), 0);
  at<u64>(21) = 40;
  EXPECT_EQ(call(__HYPERVISOR_set_gdt, {address(21), 512}, 0), 0);
  EXPECT_EQ(call(__HYPERVISOR_set_gdt, {address(21), 512}, 1), 0);
  EXPECT_EQ(call(__HYPERVISOR_set_gdt, {0, 0}, 0), 0);
  EXPECT_LT(mmu_update(kL1 << kPageShift | 40 * 8, make_entry(40, kFlags)), 0);
  EXPECT_EQ(call(__HYPERVISOR_set_gdt, {0, 0}, 1), 0);
  EXPECT_EQ(mmu_update(kL1 << kPageShift | 40 * 8, make_entry(40, kFlags)), 0);
}

TEST_F(CallsTest, Ldt) {
  EXPECT_LT(mmuext(MMUEXT_SET_LDT, address(40), 16), 0);  // writable
  ASSERT_EQ(mmu_update(kL1 << kPageShift | 40 * 8, make_entry(40, kReadOnly)), 0);
  EXPECT_EQ(mmuext(MMUEXT_SET_LDT, address(40), 16), 0);
  EXPECT_EQ(cpu.tables[1], (std::pair<u64, u32>{address(40), 127}));
  for (const u64 bad : {address(40) + 8, kHypervisor, kPerDomainStart, kNotCanonical, u64{0}, ~u64{0xfff}})
    EXPECT_LT(mmuext(MMUEXT_SET_LDT, bad, 16), 0);
  EXPECT_LT(mmuext(MMUEXT_SET_LDT, address(40), 8193), 0);
  EXPECT_LT(mmuext(MMUEXT_SET_LDT, address(40), 1024), 0);  // the second page is writable
  EXPECT_LT(mmuext(MMUEXT_SET_LDT, address(kL1), 16), 0);
  EXPECT_EQ(cpu.tables[1].first, address(40));
  EXPECT_LT(mmu_update(kL1 << kPageShift | 40 * 8, make_entry(40, kFlags)), 0);
  EXPECT_EQ(mmuext(MMUEXT_SET_LDT, 0, 0), 0);
  EXPECT_EQ(cpu.tables[1].second, 0u);
  expect_frame_can_leave(40);
}

TEST_F(CallsTest, SegmentBases) {
  const auto set = [&](u64 which, u64 base) { return call(__HYPERVISOR_set_segment_base, {which, base}); };
  EXPECT_EQ(set(SEGBASE_FS, 0x1000), 0);
  EXPECT_EQ(set(SEGBASE_GS_KERNEL, address(1)), 0);
  EXPECT_EQ(set(SEGBASE_GS_USER, 0x3000), 0);
  for (const u64 which : {SEGBASE_FS, SEGBASE_GS_KERNEL, SEGBASE_GS_USER})
    EXPECT_EQ(set(which, kNotCanonical), -XEN_EINVAL);
  EXPECT_EQ(set(4, 0), -XEN_EINVAL);
  EXPECT_EQ(cpu.bases[Cpu::kFs], 0x1000u);
  EXPECT_EQ(cpu.hidden_gs, 0x3000u);
  cpu.bad_selectors = {0x1234 & 0xffff};
  EXPECT_EQ(set(SEGBASE_GS_USER_SEL, 0x1234), 0);
  EXPECT_EQ(cpu.bases[Cpu::kGs], address(1));  // the kernel's stays
  EXPECT_EQ(cpu.selectors[Cpu::kGs], 0u);
}

// ---- callbacks and traps

TEST_F(CallsTest, CallbacksThatAreNotCanonical) {
  for (const u16 type : {CALLBACKTYPE_event, CALLBACKTYPE_failsafe, CALLBACKTYPE_syscall, CALLBACKTYPE_sysenter,
                         CALLBACKTYPE_nmi, CALLBACKTYPE_syscall32})
    EXPECT_EQ(op(__HYPERVISOR_callback_op, CALLBACKOP_register, callback_register_t{type, 0, kNotCanonical}),
              -XEN_EINVAL);
  EXPECT_EQ(op(__HYPERVISOR_callback_op, CALLBACKOP_register, callback_register_t{99, 0, 0}), -XEN_ENOSYS);
  EXPECT_EQ(op(__HYPERVISOR_callback_op, CALLBACKOP_unregister, callback_unregister_t{CALLBACKTYPE_event, 0}),
            -XEN_EINVAL);
  EXPECT_EQ(call(__HYPERVISOR_callback_op, {9, address(20)}), -XEN_ENOSYS);
  set_callback(CALLBACKTYPE_event, address(120));
  EXPECT_EQ(call(__HYPERVISOR_set_callbacks, {kNotCanonical, kNotCanonical, kNotCanonical}), 0);
  domain.set_upcall_masked(0, false);
  domain.set_upcall_pending(0, true);
  guest.attention(cpu);
  EXPECT_EQ(cpu.rip(), address(120));  // as Xen: those are not taken
  auto* const list = &at<trap_info_t>(20);
  list[0] = {3, 0, FLAT_KERNEL_CS, kNotCanonical};
  list[1] = {};
  EXPECT_EQ(call(__HYPERVISOR_set_trap_table, {address(20)}), -XEN_EINVAL);
}

TEST_F(CallsTest, ATrapTableWithoutEndHasOne) {
  for (u64 frame = 40; frame < 48; ++frame)
    for (unsigned i = 0; i < 256; ++i)
      (&at<trap_info_t>(frame))[i] = {static_cast<u8>(i), 0, FLAT_KERNEL_CS, address(1)};
  EXPECT_EQ(call(__HYPERVISOR_set_trap_table, {address(40)}), 0);
}

TEST_F(CallsTest, NoHardware) {
  for (const u64 command : {PHYSDEVOP_map_pirq, PHYSDEVOP_unmap_pirq, PHYSDEVOP_apic_read, PHYSDEVOP_apic_write,
                            PHYSDEVOP_setup_gsi, PHYSDEVOP_pci_device_add, PHYSDEVOP_eoi, PHYSDEVOP_get_free_pirq, 99})
    EXPECT_LT(call(__HYPERVISOR_physdev_op, {command, address(20)}), 0) << command;
}

// ---- vCPUs

struct VcpuContextTest : CallsTest {
  vcpu_guest_context_t& context() { return at<vcpu_guest_context_t>(50); }
  VcpuContextTest() {
    context() = {};
    context().ctrlreg[3] = kL4 << 12;
    context().flags = VGCF_in_kernel;
    context().user_regs.rip = address(100);
    context().user_regs.cs = FLAT_KERNEL_CS;
    context().user_regs.ss = FLAT_KERNEL_SS;
    context().user_regs.rsp = address(9);
  }
  i64 initialise(u64 vcpu = 1) { return call(__HYPERVISOR_vcpu_op, {VCPUOP_initialise, vcpu, address(50)}); }
  i64 up(u64 vcpu = 1) { return call(__HYPERVISOR_vcpu_op, {VCPUOP_up, vcpu}); }
};

TEST_F(VcpuContextTest, Starts) {
  ASSERT_EQ(initialise(), 0);
  guest.attention(cpus[1]);
  EXPECT_TRUE(cpus[1].halted());  // not up yet
  ASSERT_EQ(up(), 0);
  guest.attention(cpus[1]);
  EXPECT_FALSE(cpus[1].halted());
  EXPECT_EQ(cpus[1].rip(), address(100));
  EXPECT_EQ(cpus[1].kernel_root, kL4 << 12);
}

TEST_F(VcpuContextTest, OneThatWasNeverInitialisedDoesNotComeUp) {
  EXPECT_EQ(up(), -XEN_EINVAL);
  guest.attention(cpus[1]);
  EXPECT_TRUE(cpus[1].halted());
  EXPECT_LT(up(2), 0);
  EXPECT_LT(up(~u64{0}), 0);
}

TEST_F(VcpuContextTest, Once) {
  ASSERT_EQ(initialise(), 0);
  EXPECT_EQ(initialise(), -XEN_EEXIST);
  ASSERT_EQ(up(), 0);
  EXPECT_EQ(initialise(), -XEN_EEXIST);
  guest.attention(cpus[1]);
  EXPECT_EQ(initialise(), -XEN_EEXIST);
  EXPECT_EQ(call(__HYPERVISOR_vcpu_op, {VCPUOP_down, 1}), 0);
  EXPECT_EQ(initialise(), -XEN_EEXIST);
  EXPECT_EQ(initialise(0), -XEN_EEXIST);
  EXPECT_LT(initialise(2), 0);
}

TEST_F(VcpuContextTest, BadOnesLeaveNothingBehind) {
  const vcpu_guest_context_t good = context();
  ASSERT_EQ(mmu_update(kL1 << kPageShift | 40 * 8, make_entry(40, kReadOnly)), 0);
  using Spoil = void (*)(vcpu_guest_context_t&, const Layout&);
  static constexpr Spoil kSpoils[] = {
      [](auto& c, auto&) { c.ctrlreg[3] = kL3 << 12; },
      [](auto& c, auto& l) { c.ctrlreg[3] = l.tables << 12; },
      [](auto& c, auto&) { c.ctrlreg[3] = ~u64{0}; },
      [](auto& c, auto&) { c.flags = 0, c.ctrlreg[1] = kL1 << 12; },
      [](auto& c, auto&) { c.user_regs.rip = kNotCanonical; },
      [](auto& c, auto&) { c.fs_base = kNotCanonical; },
      [](auto& c, auto&) { c.gs_base_kernel = kNotCanonical; },
      [](auto& c, auto&) { c.gs_base_user = kNotCanonical; },
      [](auto& c, auto&) { c.event_callback_eip = kNotCanonical; },
      [](auto& c, auto&) { c.failsafe_callback_eip = kNotCanonical; },
      [](auto& c, auto&) { c.syscall_callback_eip = kNotCanonical; },
      [](auto& c, auto&) { c.gdt_ents = 8193; },
      [](auto& c, auto&) { c.ldt_ents = 8193; },
      [](auto& c, auto&) { c.gdt_ents = 1024, c.gdt_frames[0] = 40, c.gdt_frames[1] = kL1; },
      [](auto& c, auto& l) { c.gdt_ents = 1024, c.gdt_frames[0] = 40, c.gdt_frames[1] = l.descriptors; },
  };
  for (const Spoil spoil : kSpoils) {
    context() = good;
    spoil(context(), layout);
    EXPECT_LT(initialise(), 0) << &spoil - kSpoils;
    EXPECT_EQ(up(), -XEN_EINVAL);
  }
  EXPECT_EQ(mmuext(MMUEXT_UNPIN_TABLE, kL4), 0);
  EXPECT_EQ(mmu_update(kL1 << kPageShift | 40 * 8, make_entry(40, kFlags)), 0);
  context() = good;
  EXPECT_EQ(initialise(), 0);
}

TEST_F(VcpuContextTest, WhatItMayNotHaveIsLeftOut) {
  context().debugreg[0] = kHypervisor;
  context().debugreg[7] = 2u << 16 | 1;
  context().ldt_base = kHypervisor;
  context().ldt_ents = 8;
  context().user_regs.rflags = 0x3000;
  context().trap_ctxt[3] = {3, 3, FLAT_KERNEL_CS, kNotCanonical};
  context().flags |= VGCF_i387_valid;
  ASSERT_EQ(initialise(), 0);
  ASSERT_EQ(up(), 0);
  guest.attention(cpus[1]);
  EXPECT_EQ(cpus[1].debug[0], 0u);
  EXPECT_EQ(cpus[1].debug[7], 0u);
  EXPECT_EQ(cpus[1].tables[1].second, 0u);
  EXPECT_EQ(cpus[1].vector_resets, 1u);
  EXPECT_EQ(cpus[1].vector_loads, 1u);
}

TEST_F(VcpuContextTest, BroughtUpByManyAtOnce) {
  std::atomic<int> done{0};
  {
    std::jthread other{[&] {
      for (int i = 0; i < 1000; ++i) done += call(__HYPERVISOR_vcpu_op, {VCPUOP_initialise, 1, address(50)}) == 0;
    }};
    struct Second final : Caller {
      SmallMachine& m;
      explicit Second(SmallMachine& machine) : m{machine} {}
      unsigned vcpu() const override { return 1; }
      bool read(u64 gva, std::span<std::byte> out) override {
        return std::memcpy(out.data(), m.memory.host(Gpa{gva - kBase}, out.size()), out.size()) != nullptr;
      }
      bool write(u64, std::span<const std::byte>) override { return true; }
    } second{*this};
    for (int i = 0; i < 1000; ++i) done += guest.initialise(second, 1, address(50)) == 0;
  }
  EXPECT_EQ(done, 1);
}

// ---- memory that comes and goes

TEST_F(CallsTest, FramesInUseDoNotLeave) {
  const auto give = [&](u64 frame) {
    at<u64>(21) = frame;
    xen_memory_reservation_t reservation{};
    set_xen_guest_handle(reservation.extent_start, reinterpret_cast<xen_pfn_t*>(address(21)));
    reservation.nr_extents = 1;
    reservation.domid = DOMID_SELF;
    return op(__HYPERVISOR_memory_op, XENMEM_decrease_reservation, reservation);
  };
  for (const u64 frame : {kL4, kL3, kL2, kL1, u64{100} /* mapped */, layout.shared_info, layout.grant_frames,
                          layout.tables, layout.machine_to_physical, ~u64{0}})
    EXPECT_EQ(give(frame), 0) << frame;
  ASSERT_EQ(call(__HYPERVISOR_update_va_mapping, {address(100), 0, 0}), 0);
  EXPECT_EQ(give(100), 1);
  EXPECT_EQ(give(100), 0);
  EXPECT_LT(call(__HYPERVISOR_update_va_mapping, {address(100), make_entry(100, kFlags), 0}), 0);
  EXPECT_EQ(tables.current_pages(), kFrames - 1);
}

TEST_F(CallsTest, AGrantedFrameInUseDoesNotLeave) {
  domain.grants().grant_for_guest(8, 100);
  std::byte* const page = domain.grants().map(8, true);
  ASSERT_NE(page, nullptr);
  ASSERT_EQ(call(__HYPERVISOR_update_va_mapping, {address(100), 0, 0}), 0);
  EXPECT_LT(tables.release(100), 0);
  EXPECT_LT(tables.pin(100, 1), 0);
  domain.grants().unmap(8, true);
  ASSERT_EQ(tables.release(100), 0);
  EXPECT_EQ(domain.grants().map(8, false), nullptr);
  u64 frame = 100;
  ASSERT_EQ(tables.populate(frame), 0);
  ASSERT_EQ(tables.pin(100, 1), 0);
  EXPECT_EQ(domain.grants().map(8, true), nullptr);  // nobody writes to a page table
  EXPECT_NE(domain.grants().map(8, false), nullptr);
}

// Pages that we write events and time to are the guest's ordinary memory, for as long as we do.
TEST_F(CallsTest, PagesOfEventsAndVcpusStayOrdinary) {
  const auto register_info = [&](u64 frame) {
    at<vcpu_register_vcpu_info_t>(kFirstFree) = {frame, 64, 0};
    return call(__HYPERVISOR_vcpu_op, {VCPUOP_register_vcpu_info, 0, address(kFirstFree)});
  };
  const auto init_control = [&](u64 frame) {
    return op(__HYPERVISOR_event_channel_op, EVTCHNOP_init_control, evtchn_init_control_t{frame, 0, 0, 0, {}});
  };
  const auto expand = [&](u64 frame) {
    return op(__HYPERVISOR_event_channel_op, EVTCHNOP_expand_array, evtchn_expand_array_t{frame});
  };
  for (const u64 frame : {kL1, kL4, layout.tables, ~u64{0}}) {
    EXPECT_LT(register_info(frame), 0) << frame;
    EXPECT_LT(init_control(frame), 0) << frame;
  }
  EXPECT_EQ(register_info(120), 0);
  EXPECT_EQ(init_control(121), 0);
  EXPECT_LT(expand(kL1), 0);
  EXPECT_EQ(expand(122), 0);
  for (const u64 frame : {120u, 121u, 122u}) {
    ASSERT_EQ(call(__HYPERVISOR_update_va_mapping, {address(frame), 0, 0}), 0);
    EXPECT_LT(tables.pin(frame, 1), 0) << frame;
    EXPECT_LT(tables.release(frame), 0) << frame;
  }
  EXPECT_EQ(op(__HYPERVISOR_event_channel_op, EVTCHNOP_reset, evtchn_reset_t{DOMID_SELF}), 0);
  EXPECT_LT(tables.pin(120, 1), 0);
  EXPECT_EQ(tables.pin(121, 1), 0);
  EXPECT_EQ(tables.release(122), 0);
}

}  // namespace
}  // namespace bulkhead::abi::xen::pv
