// The grant table in both versions: what a frontend offers, what a backend gets, and what neither gets away with.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "abi/xen/testing/fake_guest.h"

namespace bulkhead::abi::xen {
namespace {

struct GrantsTest : ::testing::Test {
  testing::FakeGuest g;
  GrantHost& host() { return g.domain->grants(); }
  grant_entry_v1_t& v1(u32 i) { return reinterpret_cast<grant_entry_v1_t*>(g.ours[1].bytes)[i]; }
  grant_entry_v2_t& v2(u32 i) { return reinterpret_cast<grant_entry_v2_t*>(g.ours[1].bytes)[i]; }
  u16& status(u32 i) { return reinterpret_cast<u16*>(g.ours[1 + kGrantFrames].bytes)[i]; }
  void grant(u32 i, u64 page, u16 flags = GTF_permit_access, u16 domid = 0) {
    v1(i) = {flags, domid, static_cast<u32>(g.frame(page))};
  }
  void grant2(u32 i, u64 page, u16 flags = GTF_permit_access, u16 domid = 0) {
    v2(i).full_page = {{flags, domid}, 0, g.frame(page)};
  }
  i64 set_version(u32 version) {
    gnttab_set_version_t arg{version};
    return g.grant_op(GNTTABOP_set_version, arg);
  }
  i16 setup(u32 frames, u64 list, u16 dom = DOMID_SELF) {
    gnttab_setup_table_t arg{};
    arg.dom = dom;
    arg.nr_frames = frames;
    arg.frame_list.p = reinterpret_cast<xen_pfn_t*>(list);
    EXPECT_EQ(g.grant_op(GNTTABOP_setup_table, arg), 0);
    return arg.status;
  }
  gnttab_copy_t copy_op(u64 from, u64 to, u16 length, u16 flags) {
    gnttab_copy_t op{};
    op.source.domid = op.dest.domid = DOMID_SELF;
    op.source.u.gmfn = from;
    op.dest.u.gmfn = to;
    op.len = length;
    op.flags = flags;
    return op;
  }
  i16 copy(gnttab_copy_t op) {
    EXPECT_EQ(g.grant_op(GNTTABOP_copy, op), 0);
    return op.status;
  }
};

TEST_F(GrantsTest, SetupGrowsAndSaysWhereFramesAre) {
  EXPECT_EQ(setup(3, g.address(1)), GNTST_okay);
  for (u64 i = 0; i < 3; ++i) EXPECT_EQ((&g.at<u64>(1))[i], 0x9001 + i);
  gnttab_query_size_t size{.dom = DOMID_SELF, .nr_frames = 0, .max_nr_frames = 0, .status = 1};
  EXPECT_EQ(g.grant_op(GNTTABOP_query_size, size), 0);
  EXPECT_EQ(size.nr_frames, 3u);
  EXPECT_EQ(size.max_nr_frames, 64u);
  EXPECT_EQ(size.status, GNTST_okay);
  EXPECT_EQ(setup(65, g.address(1)), GNTST_general_error);
  EXPECT_EQ(setup(~0u, g.address(1)), GNTST_general_error);
  EXPECT_EQ(setup(3, 0x1234), GNTST_bad_virt_addr);
  EXPECT_EQ(setup(1, g.address(1), 0), GNTST_permission_denied);
  EXPECT_EQ(setup(1, g.address(1), 9), GNTST_bad_domain);
}

TEST_F(GrantsTest, MappedEntryShowsIt) {
  grant(9, 5);
  EXPECT_EQ(host().map(9, true), g.ram[5].bytes);
  EXPECT_EQ(v1(9).flags, GTF_permit_access | GTF_reading | GTF_writing);
  EXPECT_EQ(host().map(9, false), g.ram[5].bytes);
  host().unmap(9, true);
  EXPECT_EQ(v1(9).flags, GTF_permit_access | GTF_reading);
  EXPECT_EQ(g.written[g.frame(5)], 1u);
  host().unmap(9, false);
  EXPECT_EQ(v1(9).flags, GTF_permit_access);
  EXPECT_EQ(g.written[g.frame(5)], 1u);
  EXPECT_EQ(host().mapped(), 0u);
}

TEST_F(GrantsTest, Version2KeepsUseInStatusFrames) {
  ASSERT_EQ(set_version(2), 0);
  grant2(9, 5);
  EXPECT_EQ(host().map(9, true), g.ram[5].bytes);
  EXPECT_EQ(v2(9).hdr.flags, GTF_permit_access);
  EXPECT_EQ(status(9), GTF_reading | GTF_writing);
  host().unmap(9, true);
  EXPECT_EQ(status(9), 0);
  u64 list = 0;
  gnttab_get_status_frames_t frames{};
  frames.nr_frames = 1;
  frames.dom = DOMID_SELF;
  frames.frame_list.p = reinterpret_cast<uint64_t*>(g.address(1));
  EXPECT_EQ(g.grant_op(GNTTABOP_get_status_frames, frames), 0);
  EXPECT_EQ(frames.status, GNTST_okay);
  list = g.at<u64>(1);
  EXPECT_EQ(list, 0x9001u + kGrantFrames);
  frames.nr_frames = 2;
  EXPECT_EQ(g.grant_op(GNTTABOP_get_status_frames, frames), 0);
  EXPECT_EQ(frames.status, GNTST_general_error);
}

TEST_F(GrantsTest, ReservedEntriesSurviveAChangeOfVersion) {
  host().grant_for_guest(GNTTAB_RESERVED_XENSTORE, g.frame(7));
  grant(20, 8);
  std::byte* const page = host().map(GNTTAB_RESERVED_XENSTORE, true);
  EXPECT_EQ(page, g.ram[7].bytes);
  ASSERT_EQ(set_version(2), 0);
  EXPECT_EQ(v2(GNTTAB_RESERVED_XENSTORE).full_page.frame, g.frame(7));
  EXPECT_EQ(status(GNTTAB_RESERVED_XENSTORE), GTF_reading | GTF_writing);
  EXPECT_EQ(v2(20).hdr.flags, 0);
  EXPECT_EQ(host().map(20, false), nullptr);
  ASSERT_EQ(set_version(1), 0);
  EXPECT_EQ(v1(GNTTAB_RESERVED_XENSTORE).flags, GTF_permit_access | GTF_reading | GTF_writing);
  host().unmap(GNTTAB_RESERVED_XENSTORE, true);
  EXPECT_EQ(v1(GNTTAB_RESERVED_XENSTORE).flags, GTF_permit_access);
}

TEST_F(GrantsTest, VersionDoesNotChangeUnderMappings) {
  grant(20, 8);
  ASSERT_NE(host().map(20, false), nullptr);
  EXPECT_EQ(set_version(2), -kXEBUSY);
  gnttab_get_version_t version{DOMID_SELF, 0, 9};
  EXPECT_EQ(g.grant_op(GNTTABOP_get_version, version), 0);
  EXPECT_EQ(version.version, 1u);
  host().unmap(20, false);
  EXPECT_EQ(set_version(2), 0);
  for (const u32 bad : {0u, 3u, ~0u}) EXPECT_EQ(set_version(bad), -kXEINVAL);
}

TEST_F(GrantsTest, CopyBetweenFramesAndGrants) {
  std::memset(g.ram[1].bytes, 0x5a, kPageSize);
  gnttab_copy_t op = copy_op(g.frame(1), g.frame(2), 100, 0);
  op.source.offset = 8;
  op.dest.offset = 16;
  EXPECT_EQ(copy(op), GNTST_okay);
  EXPECT_EQ(g.at<u8>(2, 15), 0);
  EXPECT_EQ(g.at<u8>(2, 16), 0x5a);
  EXPECT_EQ(g.at<u8>(2, 115), 0x5a);
  EXPECT_EQ(g.at<u8>(2, 116), 0);
  EXPECT_EQ(g.written[g.frame(2)], 1u);
  grant(11, 3, GTF_permit_access, g.config.domid);
  op = copy_op(g.frame(1), 0, 4096, GNTCOPY_dest_gref);
  op.dest.u.ref = 11;
  EXPECT_EQ(copy(op), GNTST_okay);
  EXPECT_EQ(g.at<u8>(3, 4095), 0x5a);
  EXPECT_EQ(v1(11).flags, GTF_permit_access);  // nothing stays pinned
}

TEST_F(GrantsTest, SubPageGrantsAreForCopiesOnly) {
  ASSERT_EQ(set_version(2), 0);
  v2(9).sub_page = {{GTF_permit_access | GTF_sub_page, g.config.domid}, 100, 50, g.frame(3)};
  gnttab_copy_t op = copy_op(0, g.frame(4), 50, GNTCOPY_source_gref);
  op.source.u.ref = 9;
  op.source.offset = 100;
  EXPECT_EQ(copy(op), GNTST_okay);
  op.source.offset = 101;
  EXPECT_EQ(copy(op), GNTST_general_error);
  v2(9).hdr.domid = 0;
  EXPECT_EQ(host().map(9, false), nullptr);
  v2(9).sub_page = {{GTF_permit_access | GTF_sub_page, g.config.domid}, 4000, 4000, g.frame(3)};
  op.source.offset = 4000;
  EXPECT_EQ(copy(op), GNTST_bad_gntref);
}

TEST_F(GrantsTest, SwapExchangesEntriesNotInUse) {
  grant(9, 5);
  grant(10, 6, GTF_permit_access | GTF_readonly);
  gnttab_swap_grant_ref_t op{9, 10, 1};
  EXPECT_EQ(g.grant_op(GNTTABOP_swap_grant_ref, op), 0);
  EXPECT_EQ(op.status, GNTST_okay);
  EXPECT_EQ(host().map(9, false), g.ram[6].bytes);
  EXPECT_EQ(g.grant_op(GNTTABOP_swap_grant_ref, op), 0);
  EXPECT_EQ(op.status, GNTST_eagain);
  op = {9, 100000, 1};
  EXPECT_EQ(g.grant_op(GNTTABOP_swap_grant_ref, op), 0);
  EXPECT_EQ(op.status, GNTST_bad_gntref);
}

// ---- bad guests

TEST_F(GrantsTest, WhatIsNotGrantedIsNotMapped) {
  grant(1, 5, GTF_permit_access, 3);              // to somebody else
  grant(2, 5, GTF_permit_access | GTF_readonly);  // for reading
  grant(3, 5, GTF_accept_transfer);
  grant(4, 5, GTF_transitive);
  grant(5, 5, GTF_permit_access | GTF_sub_page);
  v1(6) = {GTF_permit_access, 0, 0x10};  // not the guest's frame
  v1(7) = {GTF_permit_access, 0, ~u32{0}};
  for (const u32 reference : {0u, 1u, 3u, 4u, 5u, 6u, 7u, 8u, 511u, 512u, 32768u, ~0u}) {
    EXPECT_EQ(host().map(reference, false), nullptr) << reference;
    EXPECT_EQ(host().map(reference, true), nullptr) << reference;
  }
  EXPECT_EQ(host().map(2, true), nullptr);
  EXPECT_EQ(v1(2).flags, GTF_permit_access | GTF_readonly);
  EXPECT_EQ(v1(6).flags, GTF_permit_access);
  EXPECT_NE(host().map(2, false), nullptr);
  EXPECT_EQ(host().map(2, true), nullptr);  // still only for reading
  EXPECT_EQ(g.counter("grants_refused"), 26u);
}

// A page in use stays what it was, whatever the guest writes into the entry meanwhile.
TEST_F(GrantsTest, EntryRewrittenWhileMapped) {
  grant(9, 5);
  std::byte* const page = host().map(9, true);
  grant(9, 6);
  EXPECT_EQ(host().map(9, false), page);
  v1(9) = {};
  EXPECT_EQ(host().map(9, false), page);
  v1(9) = {GTF_permit_access, 44, 0};
  host().unmap(9, true);
  host().unmap(9, false);
  host().unmap(9, false);
  EXPECT_EQ(host().map(9, false), nullptr);  // now what it says counts again
  EXPECT_EQ(host().mapped(), 0u);
}

TEST_F(GrantsTest, DoubleUnmapIsCountedAndHarmless) {
  grant(9, 5);
  ASSERT_NE(host().map(9, false), nullptr);
  host().unmap(9, true);  // was mapped for reading
  host().unmap(9, false);
  host().unmap(9, false);
  host().unmap(100000, false);
  EXPECT_EQ(g.counter("grant_bad_unmaps"), 3u);
  EXPECT_EQ(host().mapped(), 0u);
}

TEST_F(GrantsTest, GivenBackFrameIsNotShared) {
  grant(9, 5);
  g.gone.insert(g.frame(5));
  EXPECT_EQ(host().map(9, false), nullptr);
}

TEST_F(GrantsTest, GuestMapsNothing) {
  for (const u16 dom : {u16{DOMID_SELF}, u16{0}, u16{5}}) {
    gnttab_map_grant_ref_t op{};
    op.host_addr = g.address(3);
    op.flags = GNTMAP_host_map;
    op.ref = 9;
    op.dom = dom;
    EXPECT_EQ(g.grant_op(GNTTABOP_map_grant_ref, op), 0);
    EXPECT_LT(op.status, 0);
  }
  for (int i = 0; i < 3; ++i) {
    gnttab_unmap_grant_ref_t op{g.address(3), 0, 0, 1};
    EXPECT_EQ(g.grant_op(GNTTABOP_unmap_grant_ref, op), 0);
    EXPECT_EQ(op.status, GNTST_bad_handle);
  }
}

TEST_F(GrantsTest, BadCopies) {
  gnttab_copy_t op = copy_op(g.frame(1), g.frame(2), 4000, 0);
  op.source.offset = 97;
  EXPECT_EQ(copy(op), GNTST_bad_copy_arg);
  op = copy_op(g.frame(1), g.frame(2), 65535, 0);
  op.dest.offset = 65535;
  EXPECT_EQ(copy(op), GNTST_bad_copy_arg);
  EXPECT_EQ(copy(copy_op(5, g.frame(2), 4, 0)), GNTST_bad_page);
  EXPECT_EQ(copy(copy_op(g.frame(1), ~u64{0}, 4, 0)), GNTST_bad_page);
  op = copy_op(g.frame(1), g.frame(2), 4, 0);
  op.source.domid = 0;
  EXPECT_EQ(copy(op), GNTST_permission_denied);
  op.flags = GNTCOPY_source_gref;
  EXPECT_EQ(copy(op), GNTST_bad_gntref);
  op = copy_op(0, g.frame(2), 4, GNTCOPY_source_gref);
  op.source.u.ref = 9;
  EXPECT_EQ(copy(op), GNTST_bad_gntref);
  grant(9, 5, GTF_permit_access | GTF_readonly, g.config.domid);
  op = copy_op(g.frame(1), 0, 4, GNTCOPY_dest_gref);
  op.dest.u.ref = 9;
  EXPECT_EQ(copy(op), GNTST_bad_gntref);
}

TEST_F(GrantsTest, HugeCountsEndSoon) {
  for (u64 command = 0; command < 14; ++command)
    for (const u64 count : {u64{65537}, u64{1} << 32, ~u64{0}})
      EXPECT_LT(g.call(__HYPERVISOR_grant_table_op, {command, g.address(0), count}).value, 0) << command;
  // Operations that run on until memory ends.
  EXPECT_EQ(g.call(__HYPERVISOR_grant_table_op, {GNTTABOP_swap_grant_ref, g.address(0), 65536}).value, -kXEFAULT);
}

TEST_F(GrantsTest, BadPointersInEveryOperation) {
  for (u64 command = 0; command < 14; ++command)
    for (const u64 at : {u64{0}, u64{0x0000800000000000}, ~u64{7}})
      EXPECT_LT(g.call(__HYPERVISOR_grant_table_op, {command, at, 1}).value, 0) << command;
  for (const u64 command : {GNTTABOP_dump_table, GNTTABOP_transfer}) {
    g.at<gnttab_transfer_t>(1) = {};
    EXPECT_EQ(g.call(__HYPERVISOR_grant_table_op, {command, g.address(1), 1}).value, 0);
  }
}

// A guest that flips the entry while the backend maps it: the answer is yes or no, and the pin is where it belongs.
TEST_F(GrantsTest, EntryThatNeverStandsStill) {
  for (const u32 version : {1u, 2u}) {
    ASSERT_EQ(set_version(version), 0);
    std::atomic<bool> stop{false};
    std::thread villain{[&] {
      while (!stop) {
        auto word = std::atomic_ref{*reinterpret_cast<u32*>(version == 1 ? static_cast<void*>(&v1(9)) : &v2(9))};
        word.fetch_or(GTF_permit_access);
        word.fetch_xor(GTF_readonly);
        word.fetch_and(~u32{GTF_permit_access});
      }
    }};
    if (version == 1)
      v1(9).frame = static_cast<u32>(g.frame(5));
    else
      v2(9).full_page.frame = g.frame(5);
    for (int i = 0; i < 20000; ++i)
      if (std::byte* const page = host().map(9, i % 2)) {
        EXPECT_EQ(page, g.ram[5].bytes);
        host().unmap(9, i % 2);
      }
    stop = true;
    villain.join();
    EXPECT_EQ((version == 1 ? v1(9).flags : status(9)) & (GTF_reading | GTF_writing), 0);
    EXPECT_EQ(host().mapped(), 0u);
  }
}

}  // namespace
}  // namespace bulkhead::abi::xen
