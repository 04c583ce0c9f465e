// Grants that a PV guest maps itself, and those that it had better not.
#include "abi/xen/grant_maps.h"

#include <gtest/gtest.h>
#include <xen/grant_table.h>

#include "abi/xen/pv/testing/small_machine.h"

namespace bulkhead::abi::xen::pv {
namespace {

using namespace testing;

struct OwnGrantsTest : SmallMachine, ::testing::Test {
  static constexpr u32 kReference = 9;
  static constexpr u64 kGranted = 130, kWhere = 140;
  void grant(u16 flags, u64 frame = kGranted) {
    at<grant_entry_v1_t>(layout.grant_frames, kReference * sizeof(grant_entry_v1_t)) = {flags, 1,
                                                                                        static_cast<u32>(frame)};
  }
  u16 grant_flags() { return at<grant_entry_v1_t>(layout.grant_frames, kReference * sizeof(grant_entry_v1_t)).flags; }
  gnttab_map_grant_ref_t map(u64 host_addr, u32 flags, u16 dom = DOMID_SELF, u32 ref = kReference) {
    at<gnttab_map_grant_ref_t>(kFirstFree) = {host_addr, flags, ref, dom, 0, 0, 0};
    EXPECT_EQ(call(__HYPERVISOR_grant_table_op, {GNTTABOP_map_grant_ref, address(kFirstFree), 1}), 0);
    return at<gnttab_map_grant_ref_t>(kFirstFree);
  }
  i16 unmap(u64 host_addr, u32 handle) {
    at<gnttab_unmap_grant_ref_t>(kFirstFree) = {host_addr, 0, handle, 0};
    EXPECT_EQ(call(__HYPERVISOR_grant_table_op, {GNTTABOP_unmap_grant_ref, address(kFirstFree), 1}), 0);
    return at<gnttab_unmap_grant_ref_t>(kFirstFree).status;
  }
  u64 entry_address(u64 frame) { return kL1 << kPageShift | frame * 8; }
};

TEST_F(OwnGrantsTest, MappedByAddressAndByEntry) {
  grant(GTF_permit_access);
  for (const u32 how : {0u, u32{GNTMAP_contains_pte}}) {
    const u64 where = how == 0 ? address(kWhere) : entry_address(kWhere);
    const auto mapped = map(where, GNTMAP_host_map | how | 5u << _GNTMAP_guest_avail0, how == 0 ? DOMID_SELF : 1);
    ASSERT_EQ(mapped.status, GNTST_okay);
    EXPECT_EQ(mapped.dev_bus_addr, kGranted << kPageShift);
    EXPECT_EQ(table(kL1)[kWhere], make_entry(kGranted, kFlags | 5 << 9));
    EXPECT_EQ(grant_flags(), GTF_permit_access | GTF_reading | GTF_writing);
    cpu.flushed_others.clear();
    EXPECT_EQ(unmap(where, mapped.handle), GNTST_okay);
    EXPECT_EQ(cpu.flushed_others.size(), 1u);
    EXPECT_EQ(table(kL1)[kWhere], 0u);
    EXPECT_EQ(grant_flags(), GTF_permit_access);
    EXPECT_EQ(unmap(where, mapped.handle), GNTST_bad_handle);
  }
}

TEST_F(OwnGrantsTest, ReadOnlyIsReadOnly) {
  grant(GTF_permit_access | GTF_readonly);
  EXPECT_EQ(map(address(kWhere), GNTMAP_host_map).status, GNTST_bad_gntref);
  const auto mapped = map(address(kWhere), GNTMAP_host_map | GNTMAP_readonly);
  ASSERT_EQ(mapped.status, GNTST_okay);
  EXPECT_EQ(table(kL1)[kWhere], make_entry(kGranted, kReadOnly | kDirty));
  EXPECT_EQ(unmap(address(kWhere), mapped.handle), GNTST_okay);
}

TEST_F(OwnGrantsTest, WhileMappedThePageStaysWhatItIs) {
  grant(GTF_permit_access);
  const auto mapped = map(address(kWhere), GNTMAP_host_map);
  ASSERT_EQ(mapped.status, GNTST_okay);
  ASSERT_EQ(call(__HYPERVISOR_update_va_mapping, {address(kGranted), 0, 0}), 0);
  EXPECT_LT(tables.pin(kGranted, 1), 0);
  EXPECT_LT(tables.release(kGranted), 0);
  // The guest takes the entry away by itself: the grant is still in use, and the page stays.
  ASSERT_EQ(call(__HYPERVISOR_update_va_mapping, {address(kWhere), 0, 0}), 0);
  EXPECT_LT(tables.release(kGranted), 0);
  EXPECT_EQ(unmap(address(kWhere), mapped.handle), GNTST_general_error);  // it is not there
  EXPECT_EQ(unmap(0, mapped.handle), GNTST_okay);                         // only the handle
  EXPECT_EQ(tables.release(kGranted), 0);
}

TEST_F(OwnGrantsTest, PageTablesAreNotMappedWritable) {
  grant(GTF_permit_access, kL1);
  EXPECT_LT(map(address(kWhere), GNTMAP_host_map).status, 0);
  const auto mapped = map(address(kWhere), GNTMAP_host_map | GNTMAP_readonly);
  EXPECT_EQ(mapped.status, GNTST_okay);
  EXPECT_EQ(unmap(address(kWhere), mapped.handle), GNTST_okay);
  EXPECT_EQ(grant_flags(), GTF_permit_access);
}

TEST_F(OwnGrantsTest, BadPlaces) {
  grant(GTF_permit_access);
  const u64 before = table(kL1)[kWhere];
  for (const u64 where : {u64{0}, u64{0x1000}, kHypervisor, u64{0x0000800000000000}, ~u64{0}})
    EXPECT_EQ(map(where, GNTMAP_host_map).status, GNTST_general_error) << std::hex << where;
  for (const u64 where : {entry_address(kWhere) + 1, kL2 << kPageShift | 8, kGranted << kPageShift,
                          layout.tables << kPageShift, layout.end() << kPageShift, ~u64{7}})
    EXPECT_EQ(map(where, GNTMAP_host_map | GNTMAP_contains_pte).status, GNTST_general_error) << std::hex << where;
  EXPECT_EQ(table(kL1)[kWhere], before);
  EXPECT_EQ(grant_flags(), GTF_permit_access);
}

TEST_F(OwnGrantsTest, BadRequests) {
  grant(GTF_permit_access);
  EXPECT_EQ(map(address(kWhere), 0).status, GNTST_bad_gntref);
  EXPECT_EQ(map(address(kWhere), GNTMAP_host_map, 0).status, GNTST_bad_gntref);
  EXPECT_EQ(map(address(kWhere), GNTMAP_host_map, 7).status, GNTST_bad_domain);
  for (const u32 reference : {0u, 8u, 512u, ~0u})
    EXPECT_EQ(map(address(kWhere), GNTMAP_host_map, DOMID_SELF, reference).status, GNTST_bad_gntref) << reference;
  const auto mapped = map(address(kWhere), GNTMAP_host_map);
  ASSERT_EQ(mapped.status, GNTST_okay);
  EXPECT_EQ(unmap(address(kWhere), mapped.handle + 1), GNTST_bad_handle);
  EXPECT_EQ(unmap(address(kWhere), ~0u), GNTST_bad_handle);
  EXPECT_EQ(unmap(address(kWhere + 1), mapped.handle), GNTST_general_error);  // another page is there
  EXPECT_EQ(unmap(address(kWhere), mapped.handle), GNTST_okay);
}

TEST_F(OwnGrantsTest, HandlesAreBounded) {
  grant(GTF_permit_access);
  const u32 flags = GNTMAP_device_map;  // seen nowhere
  for (u32 i = 0; i < GrantMaps::kMost; ++i) ASSERT_EQ(map(0, flags).status, GNTST_okay) << i;
  EXPECT_EQ(map(0, flags).status, GNTST_no_space);
  EXPECT_EQ(map(address(kWhere), flags | GNTMAP_host_map).status, GNTST_no_space);
  EXPECT_EQ(table(kL1)[kWhere], 0u);  // taken away again
  EXPECT_EQ(unmap(0, 5), GNTST_okay);
  EXPECT_EQ(map(0, flags).handle, 5u);
}

TEST_F(OwnGrantsTest, Replaced) {
  grant(GTF_permit_access);
  const auto replace = [&](u32 handle, u64 new_addr) {
    at<gnttab_unmap_and_replace_t>(kFirstFree) = {address(kWhere), new_addr, handle, 0};
    EXPECT_EQ(call(__HYPERVISOR_grant_table_op, {GNTTABOP_unmap_and_replace, address(kFirstFree), 1}), 0);
    return at<gnttab_unmap_and_replace_t>(kFirstFree).status;
  };
  const auto mapped = map(address(kWhere), GNTMAP_host_map);
  ASSERT_EQ(mapped.status, GNTST_okay);
  EXPECT_EQ(replace(mapped.handle, 0x1000), GNTST_general_error);
  EXPECT_EQ(table(kL1)[kWhere], make_entry(kGranted, kFlags));
  EXPECT_EQ(replace(mapped.handle, address(150)), GNTST_okay);
  EXPECT_EQ(table(kL1)[kWhere], make_entry(150, kFlags));
  EXPECT_EQ(table(kL1)[150], 0u);
  EXPECT_EQ(replace(mapped.handle, address(151)), GNTST_bad_handle);
}

TEST_F(OwnGrantsTest, Copied) {
  grant(GTF_permit_access);
  at<u64>(kGranted, 8) = 77;
  gnttab_copy_t copy{};
  copy.source.u.ref = kReference;
  copy.source.domid = copy.dest.domid = DOMID_SELF;
  copy.source.offset = 8;
  copy.dest.u.gmfn = 131;
  copy.len = 8;
  copy.flags = GNTCOPY_source_gref;
  const auto do_copy = [&] {
    at<gnttab_copy_t>(kFirstFree) = copy;
    EXPECT_EQ(call(__HYPERVISOR_grant_table_op, {GNTTABOP_copy, address(kFirstFree), 1}), 0);
    return at<gnttab_copy_t>(kFirstFree).status;
  };
  EXPECT_EQ(do_copy(), GNTST_okay);
  EXPECT_EQ(at<u64>(131), 77u);
  copy.dest.u.gmfn = kL1;  // copying is no way to write page tables
  EXPECT_LT(do_copy(), 0);
  EXPECT_EQ(grant_flags(), GTF_permit_access);
}

}  // namespace
}  // namespace bulkhead::abi::xen::pv
