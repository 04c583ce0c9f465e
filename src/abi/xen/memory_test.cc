// memory_op: ballooning, reservations, and pages of ours in a PVH guest's map.
#include <gtest/gtest.h>

#include "abi/xen/testing/fake_guest.h"

namespace bulkhead::abi::xen {
namespace {

struct MemoryTest : ::testing::Test {
  testing::FakeGuest g;
  i64 memory(u64 command, u64 at) { return g.call(__HYPERVISOR_memory_op, {command, at}).value; }
  template <class T>
  i64 with(u64 command, const T& arg) {
    g.at<T>(60) = arg;
    return memory(command, g.address(60));
  }
  xen_memory_reservation_t extents(u64 list, u64 count, unsigned order = 0) {
    xen_memory_reservation_t arg{};
    arg.extent_start.p = reinterpret_cast<xen_pfn_t*>(list);
    arg.nr_extents = count;
    arg.extent_order = order;
    arg.domid = DOMID_SELF;
    return arg;
  }
  i64 add(unsigned space, u64 index, u64 frame, u16 domid = DOMID_SELF) {
    return with(XENMEM_add_to_physmap, xen_add_to_physmap_t{domid, 0, space, index, frame});
  }
};

TEST_F(MemoryTest, BalloonGoesDownAndUp) {
  for (u64 i = 0; i < 4; ++i) (&g.at<u64>(1))[i] = g.frame(40 + i);
  EXPECT_EQ(with(XENMEM_decrease_reservation, extents(g.address(1), 4)), 4);
  EXPECT_EQ(g.current_pages(), 60u);
  EXPECT_EQ(with(XENMEM_current_reservation, xen_memory_domain{DOMID_SELF}), 60);
  EXPECT_EQ(with(XENMEM_maximum_reservation, xen_memory_domain{DOMID_SELF}), 64);
  EXPECT_EQ(with(XENMEM_populate_physmap, extents(g.address(1), 4)), 4);
  EXPECT_EQ(g.current_pages(), 64u);
  EXPECT_EQ(with(XENMEM_populate_physmap, extents(g.address(1), 4)), 0);  // all there
}

TEST_F(MemoryTest, LargeExtents) {
  g.at<u64>(1) = g.frame(16);
  EXPECT_EQ(with(XENMEM_decrease_reservation, extents(g.address(1), 1, 3)), 1);
  EXPECT_EQ(g.current_pages(), 56u);
  EXPECT_EQ(with(XENMEM_populate_physmap, extents(g.address(1), 1, 3)), 1);
  EXPECT_EQ(with(XENMEM_decrease_reservation, extents(g.address(1), 1, 10)), 0);
  EXPECT_EQ(with(XENMEM_decrease_reservation, extents(g.address(1), 1, ~0u)), 0);
}

TEST_F(MemoryTest, PvIsToldItsMachineFrames) {
  testing::FakeGuest pv{GuestKind::kPv};
  pv.at<u64>(1) = pv.frame(30);
  pv.at<xen_memory_reservation_t>(60) = extents(pv.address(1), 1);
  EXPECT_EQ(pv.call(__HYPERVISOR_memory_op, {XENMEM_decrease_reservation, pv.address(60)}).value, 1);
  pv.at<u64>(1) = 0x777;  // a pseudo-physical frame
  EXPECT_EQ(pv.call(__HYPERVISOR_memory_op, {XENMEM_populate_physmap, pv.address(60)}).value, 1);
  EXPECT_EQ(pv.at<u64>(1), pv.frame(30));
  EXPECT_EQ(pv.call(__HYPERVISOR_memory_op, {XENMEM_increase_reservation, pv.address(60)}).value, 0);  // no more
}

TEST_F(MemoryTest, ContinuesBehindWhatIsDone) {
  for (u64 i = 0; i < 4; ++i) (&g.at<u64>(1))[i] = g.frame(40 + i);
  EXPECT_EQ(with(XENMEM_decrease_reservation | 2u << 6, extents(g.address(1), 4)), 4);
  EXPECT_EQ(g.current_pages(), 62u);
  EXPECT_EQ(with(XENMEM_decrease_reservation | 9u << 6, extents(g.address(1), 4)), 9);  // as it says
}

TEST_F(MemoryTest, Limits) {
  EXPECT_EQ(memory(XENMEM_maximum_ram_page, 0), static_cast<i64>(g.maximum_frame()));
  EXPECT_EQ(with(XENMEM_maximum_gpfn, xen_memory_domain{DOMID_SELF}), static_cast<i64>(g.maximum_frame()));
  for (const u64 command : {XENMEM_current_reservation, XENMEM_maximum_reservation, XENMEM_maximum_gpfn}) {
    EXPECT_EQ(with(command, xen_memory_domain{0}), -kXEPERM);
    EXPECT_EQ(with(command, xen_memory_domain{7}), -kXESRCH);
    EXPECT_EQ(memory(command, 0), -kXEFAULT);
  }
}

TEST_F(MemoryTest, MemoryMapAsFarAsThereIsRoom) {
  g.config = g.standard(GuestKind::kPvh);
  g.config.memory_map = {{0, 0x9f000, 1}, {0x100000, 0x1000000, 1}, {0xfeff8000, 0x8000, 2}};
  g.start();
  xen_memory_map_t arg{};
  arg.nr_entries = 10;
  arg.buffer.p = reinterpret_cast<void*>(g.address(2));
  EXPECT_EQ(with(XENMEM_memory_map, arg), 0);
  EXPECT_EQ(g.at<xen_memory_map_t>(60).nr_entries, 3u);
  EXPECT_EQ(g.at<u64>(2, 40), 0xfeff8000u);
  EXPECT_EQ(g.at<u32>(2, 56), 2u);
  arg.nr_entries = 1;
  EXPECT_EQ(with(XENMEM_memory_map, arg), 0);
  EXPECT_EQ(g.at<xen_memory_map_t>(60).nr_entries, 1u);
  arg.buffer.p = nullptr;
  EXPECT_EQ(with(XENMEM_memory_map, arg), -kXEFAULT);
}

TEST_F(MemoryTest, OurPagesArePlacedWhereTheGuestSays) {
  EXPECT_EQ(add(XENMAPSPACE_shared_info, 0, 0x500), 0);
  EXPECT_EQ(g.placed[0x500], g.ours[0].bytes);
  EXPECT_EQ(add(XENMAPSPACE_grant_table, 5, 0x501), 0);
  EXPECT_EQ(g.placed[0x501], g.ours[6].bytes);
  gnttab_query_size_t size{.dom = DOMID_SELF, .nr_frames = 0, .max_nr_frames = 0, .status = 0};
  g.grant_op(GNTTABOP_query_size, size);
  EXPECT_EQ(size.nr_frames, 6u);  // grown as asked for
  EXPECT_EQ(with(XENMEM_remove_from_physmap, xen_remove_from_physmap_t{DOMID_SELF, 0x501}), 0);
  EXPECT_FALSE(g.placed.contains(0x501));
}

TEST_F(MemoryTest, StatusFramesOnlyInVersion2) {
  EXPECT_EQ(add(XENMAPSPACE_grant_table, XENMAPIDX_grant_table_status, 0x500), -kXEINVAL);
  gnttab_set_version_t version{2};
  ASSERT_EQ(g.grant_op(GNTTABOP_set_version, version), 0);
  EXPECT_EQ(add(XENMAPSPACE_grant_table, XENMAPIDX_grant_table_status, 0x500), 0);
  EXPECT_EQ(g.placed[0x500], g.ours[1 + kGrantFrames].bytes);
  EXPECT_EQ(add(XENMAPSPACE_grant_table, XENMAPIDX_grant_table_status | 1, 0x500), -kXEINVAL);
}

TEST_F(MemoryTest, BatchHasAnErrorForEach) {
  for (u64 i = 0; i < 3; ++i) {
    (&g.at<u64>(1))[i] = i == 1 ? 1000 : i;
    (&g.at<u64>(2))[i] = 0x600 + i;
  }
  xen_add_to_physmap_batch_t arg{};
  arg.domid = DOMID_SELF;
  arg.space = XENMAPSPACE_grant_table;
  arg.size = 3;
  arg.idxs.p = reinterpret_cast<xen_ulong_t*>(g.address(1));
  arg.gpfns.p = reinterpret_cast<xen_pfn_t*>(g.address(2));
  arg.errs.p = reinterpret_cast<int*>(g.address(3));
  EXPECT_EQ(with(XENMEM_add_to_physmap_batch, arg), 0);
  EXPECT_EQ((&g.at<int>(3))[0], 0);
  EXPECT_EQ((&g.at<int>(3))[1], -kXEINVAL);
  EXPECT_EQ((&g.at<int>(3))[2], 0);
  arg.errs.p = nullptr;
  EXPECT_EQ(with(XENMEM_add_to_physmap_batch, arg), -kXEFAULT);
}

// ---- bad guests

TEST_F(MemoryTest, BadPlacements) {
  EXPECT_EQ(add(XENMAPSPACE_shared_info, 1, 0x500), -kXEINVAL);
  EXPECT_EQ(add(XENMAPSPACE_grant_table, 64, 0x500), -kXEINVAL);
  EXPECT_EQ(add(XENMAPSPACE_grant_table, ~u64{0}, 0x500), -kXEINVAL);
  EXPECT_EQ(add(XENMAPSPACE_shared_info, 0, ~u64{0}), -kXEINVAL);
  EXPECT_EQ(add(XENMAPSPACE_gmfn_foreign, 0, 0x500), -kXEPERM);
  for (const unsigned space : {unsigned{XENMAPSPACE_gmfn}, unsigned{XENMAPSPACE_gmfn_range}, 5u, 99u, ~0u})
    EXPECT_LT(add(space, 0, 0x500), 0);
  EXPECT_EQ(add(XENMAPSPACE_shared_info, 0, 0x500, 0), -kXEPERM);
  EXPECT_EQ(add(XENMAPSPACE_shared_info, 0, 0x500, 4), -kXESRCH);
  EXPECT_TRUE(g.placed.empty());
}

TEST_F(MemoryTest, PvHasNoPlacements) {
  testing::FakeGuest pv{GuestKind::kPv};
  pv.at<xen_add_to_physmap_t>(60) = {DOMID_SELF, 0, XENMAPSPACE_shared_info, 0, 0x500};
  EXPECT_EQ(pv.call(__HYPERVISOR_memory_op, {XENMEM_add_to_physmap, pv.address(60)}).value, -kXEACCES);
}

TEST_F(MemoryTest, FramesThatAreNotTheGuests) {
  for (const u64 frame : {u64{0}, u64{5}, u64{1} << 52, ~u64{0}}) {
    g.at<u64>(1) = frame;
    EXPECT_EQ(with(XENMEM_decrease_reservation, extents(g.address(1), 1)), 0);
    EXPECT_EQ(with(XENMEM_populate_physmap, extents(g.address(1), 1)), 0);
    EXPECT_EQ(with(XENMEM_remove_from_physmap, xen_remove_from_physmap_t{DOMID_SELF, frame}), -kXEINVAL);
  }
  g.at<u64>(1) = g.frame(3);
  EXPECT_EQ(with(XENMEM_decrease_reservation, extents(g.address(1), 1)), 1);
  EXPECT_EQ(with(XENMEM_decrease_reservation, extents(g.address(1), 1)), 0);  // once
}

TEST_F(MemoryTest, HugeListsEndSoon) {
  for (const u64 command : {XENMEM_decrease_reservation, XENMEM_populate_physmap, XENMEM_increase_reservation})
    for (const u64 count : {u64{1} << 20, u64{1} << 60, ~u64{0}}) {
      const i64 done = with(command, extents(g.address(0), count));
      EXPECT_GE(done, 0);
      EXPECT_LE(done, 40000);
    }
}

TEST_F(MemoryTest, BadPointersAndPrivilegedOperations) {
  for (u64 command = 0; command < 64; ++command)
    for (const u64 at : {u64{0}, u64{0x0000800000000000}, ~u64{7}})
      EXPECT_TRUE(command == XENMEM_maximum_ram_page || memory(command, at) <= 0) << command;
  for (const u64 command : {XENMEM_machine_memory_map, XENMEM_set_memory_map, XENMEM_set_pod_target})
    EXPECT_EQ(memory(command, g.address(1)), -kXEPERM);
  EXPECT_EQ(memory(XENMEM_exchange, g.address(1)), -kXEOPNOTSUPP);
}

}  // namespace
}  // namespace bulkhead::abi::xen
