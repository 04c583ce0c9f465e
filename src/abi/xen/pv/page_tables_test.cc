#include "abi/xen/pv/page_tables.h"

#include <gtest/gtest.h>
#include <xen/errno.h>

#include "abi/xen/pv/testing/small_machine.h"

namespace bulkhead::abi::xen::pv {
namespace {

using namespace testing;

struct PageTablesTest : ::testing::Test, SmallMemory {
  PageTables tables{memory, layout};
  i64 update(u64 frame, unsigned index, u64 value, AccessedDirty bits = AccessedDirty::kAsGiven) {
    return tables.update(frame << kPageShift | index * 8, value, bits);
  }
  u64 machine_to_physical(u64 frame) { return table(layout.machine_to_physical + frame / 512)[frame % 512]; }
  // Nothing relies on a frame any more when it may leave.
  void expect_all_can_leave() {
    for (u64 frame = 0; frame < kFrames; ++frame) EXPECT_EQ(tables.release(frame), 0) << frame;
    EXPECT_EQ(tables.current_pages(), 0u);
  }
};

TEST_F(PageTablesTest, PinAndUnpin) {
  EXPECT_EQ(tables.pin(kL4, 4), 0);
  EXPECT_EQ(tables.pin(kL4, 4), -XEN_EINVAL);
  EXPECT_EQ(tables.pin(kL1, 1), 0);
  EXPECT_EQ(tables.release(kL1), -XEN_EINVAL);
  EXPECT_EQ(tables.unpin(kL4), 0);
  EXPECT_EQ(tables.unpin(kL4), -XEN_EINVAL);
  EXPECT_TRUE(tables.is_leaf_table(kL1));
  EXPECT_EQ(tables.unpin(kL1), 0);
  EXPECT_FALSE(tables.is_leaf_table(kL1));
  expect_all_can_leave();
}

TEST_F(PageTablesTest, PinningNonsense) {
  table(20)[7] = 0x123456789abcdef1;
  for (unsigned level = 1; level <= 4; ++level) {
    EXPECT_LT(tables.pin(20, level), 0);
    EXPECT_LT(tables.pin(layout.tables, level), 0);
    EXPECT_LT(tables.pin(layout.shared_info, level), 0);
    EXPECT_LT(tables.pin(kFrames, level), 0);
    EXPECT_LT(tables.pin(~u64{0}, level), 0);
    EXPECT_LT(tables.pin(u64{1} << 52, level), 0);
  }
  EXPECT_LT(tables.unpin(20), 0);
  EXPECT_LT(tables.unpin(~u64{0}), 0);
  EXPECT_EQ(tables.counters()[PageTables::kRefusedPins].value(), 26u);
  expect_all_can_leave();
}

TEST_F(PageTablesTest, UpdatesMoveCounts) {
  ASSERT_EQ(tables.pin(kL4, 4), 0);
  EXPECT_EQ(update(kL1, 100, make_entry(101, kFlags)), 0);
  EXPECT_EQ(tables.release(100), 0);  // nothing maps it now
  EXPECT_EQ(update(kL1, 101, 0), 0);
  EXPECT_EQ(tables.release(101), -XEN_EINVAL);  // still at 100
  EXPECT_EQ(update(kL1, 102, make_entry(102, kReadOnly)), 0);
  EXPECT_EQ(tables.pin(102, 1), 0);
  EXPECT_EQ(update(kL1, 102, make_entry(102, kFlags)), -XEN_EINVAL);  // a table now
  EXPECT_EQ(table(kL1)[102], make_entry(102, kReadOnly));
  EXPECT_EQ(update(kL1, 103, make_entry(100, kReadOnly)), -XEN_EINVAL);  // gone
  EXPECT_EQ(tables.unpin(102), 0);
  EXPECT_EQ(tables.unpin(kL4), 0);
}

TEST_F(PageTablesTest, RefusedUpdatesChangeNothing) {
  ASSERT_EQ(tables.pin(kL4, 4), 0);
  const u64 before = table(kL1)[100];
  for (const u64 bad : {make_entry(layout.tables, kReadOnly), make_entry(layout.machine_to_physical, kFlags),
                        make_entry(kL4, kFlags), make_entry(9, kFlags | kLarge), make_entry(0xfffffffff, kFlags)}) {
    EXPECT_LT(update(kL1, 100, bad), 0);
    EXPECT_EQ(table(kL1)[100], before);
  }
  EXPECT_LT(update(kL4, 0, make_entry(kL4, kFlags)), 0);
  EXPECT_LT(update(kL2, 1, make_entry(20, kFlags)), 0);  // writable elsewhere
  EXPECT_LT(update(kL2, 1, make_entry(kL1, kFlags | kLarge)), 0);
  EXPECT_EQ(update(kL2, 1, make_entry(kL1, kFlags)), 0);  // one table at two places is fine
  EXPECT_EQ(update(kL2, 1, 0), 0);
  EXPECT_EQ(tables.unpin(kL4), 0);
  expect_all_can_leave();
}

TEST_F(PageTablesTest, TheHypervisorsSlotsCannotBeWritten) {
  ASSERT_EQ(tables.pin(kL4, 4), 0);
  const u64 map = table(kL4)[256], domain = table(kL4)[260];
  EXPECT_TRUE(map & kPresent);
  EXPECT_TRUE(domain & kPresent);
  for (unsigned slot = 256; slot < 272; ++slot) {
    EXPECT_LT(update(kL4, slot, 0), 0);
    EXPECT_LT(update(kL4, slot, make_entry(kL3, kFlags)), 0);
  }
  EXPECT_EQ(table(kL4)[256], map);
  EXPECT_EQ(table(kL4)[260], domain);
  EXPECT_EQ(update(kL4, 255, make_entry(kL3, kFlags)), 0);
  EXPECT_EQ(update(kL4, 272, make_entry(kL3, kFlags)), 0);
}

TEST_F(PageTablesTest, UpdatesOutsideOfTheGuest) {
  for (const u64 frame : {layout.shared_info, layout.tables, layout.machine_to_physical, layout.descriptors,
                          layout.all_frames, u64{1} << 40, u64{1} << 51})
    EXPECT_EQ(update(frame, 0, 0), -XEN_EINVAL);
  EXPECT_EQ(update(20, 3, 77), 0);  // ordinary memory is just written
  EXPECT_EQ(table(20)[3], 77u);
}

TEST_F(PageTablesTest, AccessedAndDirtyStayWhenAsked) {
  ASSERT_EQ(tables.pin(kL4, 4), 0);
  EXPECT_EQ(update(kL1, 100, make_entry(100, kPresent | kUser), AccessedDirty::kPreserve), 0);
  EXPECT_EQ(table(kL1)[100], make_entry(100, kPresent | kUser | kAccessed | kDirty));
  EXPECT_EQ(update(kL1, 100, make_entry(100, kPresent | kUser)), 0);
  EXPECT_EQ(table(kL1)[100], make_entry(100, kPresent | kUser));
}

TEST_F(PageTablesTest, WritesThroughACopy) {
  ASSERT_EQ(tables.pin(kL4, 4), 0);
  std::array<u64, kEntries> before, copy;
  std::copy_n(table(kL1), kEntries, before.begin());
  copy = before;
  copy[100] = 0;
  copy[101] = make_entry(102, kPresent | kWritable);
  EXPECT_EQ(tables.write_leaf_table(kL1, before.data(), copy.data()), PageTables::Written::kDone);
  EXPECT_EQ(table(kL1)[101], make_entry(102, kPresent | kWritable | kUser));
  EXPECT_EQ(tables.release(100), 0);
  EXPECT_EQ(tables.write_leaf_table(kL1, before.data(), copy.data()), PageTables::Written::kAgain);
  std::copy_n(table(kL1), kEntries, before.begin());
  copy = before;
  copy[103] = make_entry(layout.tables, kReadOnly);
  EXPECT_EQ(tables.write_leaf_table(kL1, before.data(), copy.data()), PageTables::Written::kRefused);
  copy[103] = make_entry(kL3, kFlags);
  EXPECT_EQ(tables.write_leaf_table(kL1, before.data(), copy.data()), PageTables::Written::kRefused);
  EXPECT_EQ(table(kL1)[103], before[103]);
  EXPECT_EQ(tables.write_leaf_table(kL2, before.data(), copy.data()), PageTables::Written::kRefused);
  EXPECT_EQ(tables.write_leaf_table(~u64{0}, before.data(), copy.data()), PageTables::Written::kRefused);
  EXPECT_EQ(tables.unpin(kL4), 0);
}

TEST_F(PageTablesTest, RootsAreHeld) {
  ASSERT_EQ(tables.pin(kL4, 4), 0);
  ASSERT_EQ(tables.take_root(kL4), 0);
  EXPECT_LT(tables.take_root(kL3), 0);
  EXPECT_LT(tables.take_root(layout.tables), 0);
  EXPECT_EQ(tables.unpin(kL4), 0);
  EXPECT_TRUE(tables.is_leaf_table(kL1));  // the vCPU still runs on it
  EXPECT_EQ(tables.release(kL4), -XEN_EINVAL);
  tables.put_root(kL4);
  EXPECT_FALSE(tables.is_leaf_table(kL1));
  expect_all_can_leave();
}

TEST_F(PageTablesTest, LeafEntries) {
  ASSERT_EQ(tables.pin(kL4, 4), 0);
  EXPECT_EQ(tables.leaf_entry(kL4, address(5, 123)), (kL1 << kPageShift | 5 * 8));
  EXPECT_FALSE(tables.leaf_entry(kL4, 0));
  EXPECT_FALSE(tables.leaf_entry(kL4, kHypervisor));
  EXPECT_FALSE(tables.leaf_entry(kL4, kPerDomainStart));
  EXPECT_FALSE(tables.leaf_entry(~u64{0}, address(5)));
}

TEST_F(PageTablesTest, MachineToPhysical) {
  for (u64 i = 0; i < kFrames; ++i) EXPECT_EQ(machine_to_physical(i), i);
  for (u64 i = kFrames; i < layout.all_frames; ++i) EXPECT_EQ(machine_to_physical(i), ~u64{0});
  EXPECT_EQ(tables.set_machine_to_physical(9, 77), 0);
  EXPECT_EQ(machine_to_physical(9), 77u);
  EXPECT_LT(tables.set_machine_to_physical(layout.shared_info, 1), 0);
  EXPECT_LT(tables.set_machine_to_physical(~u64{0}, 1), 0);
}

TEST_F(PageTablesTest, Ballooning) {
  table(30)[0] = 42;
  EXPECT_EQ(tables.release(30), 0);
  EXPECT_EQ(tables.release(30), -XEN_EINVAL);
  EXPECT_EQ(tables.current_pages(), kFrames - 1);
  EXPECT_EQ(machine_to_physical(30), ~u64{0});
  EXPECT_EQ(tables.guest_page(30), nullptr);
  EXPECT_EQ(tables.hold(30, Hold::kRead), nullptr);
  u64 frame = 1234;  // the physical number that the guest wants it at
  EXPECT_EQ(tables.populate(frame), 0);
  EXPECT_EQ(frame, 30u);
  EXPECT_EQ(table(30)[0], 0u);
  EXPECT_EQ(machine_to_physical(30), 1234u);
  EXPECT_EQ(tables.populate(frame), -XEN_ENOMEM);
  EXPECT_EQ(tables.current_pages(), kFrames);
  for (const u64 ours : {layout.shared_info, layout.tables, layout.machine_to_physical, ~u64{0}})
    EXPECT_EQ(tables.release(ours), -XEN_EINVAL);
}

// It may come back as a page table, when a vCPU that was never told could still write to it.
TEST_F(PageTablesTest, NobodyWritesToAFreedFrame) {
  std::vector<u64> stopped;
  tables.set_stop_writes([&](u64 frame) { stopped.push_back(frame); });
  EXPECT_EQ(update(30, 0, 42), 0);
  EXPECT_EQ(tables.release(30), 0);
  EXPECT_EQ(tables.release(31), 0);  // nobody could
  EXPECT_EQ(stopped, std::vector<u64>{30});
}

// What somebody else uses stays where it is, and what is written to does not become a table.
TEST_F(PageTablesTest, HeldFrames) {
  for (const Hold use : {Hold::kRead, Hold::kWrite}) {
    ASSERT_EQ(tables.hold(30, use), reinterpret_cast<std::byte*>(table(30)));
    EXPECT_EQ(tables.release(30), -XEN_EINVAL);
    EXPECT_EQ(tables.pin(30, 1), use == Hold::kRead ? 0 : -XEN_EBUSY);
    EXPECT_EQ(tables.unpin(30), use == Hold::kRead ? 0 : -XEN_EINVAL);
    tables.let_go(30, use);
  }
  EXPECT_EQ(tables.pin(30, 1), 0);
  EXPECT_EQ(tables.hold(30, Hold::kWrite), nullptr);
  EXPECT_NE(tables.hold(30, Hold::kRead), nullptr);
  tables.let_go(30, Hold::kRead);
  EXPECT_EQ(tables.unpin(30), 0);
  EXPECT_NE(tables.hold(layout.shared_info, Hold::kWrite), nullptr);
  tables.let_go(layout.shared_info, Hold::kWrite);
  for (const u64 bad : {layout.tables, layout.machine_to_physical, layout.end(), ~u64{0}})
    EXPECT_EQ(tables.hold(bad, Hold::kRead), nullptr);
  expect_all_can_leave();
}

TEST_F(PageTablesTest, ClearAndCopy) {
  table(30)[0] = 42;
  EXPECT_EQ(tables.copy_page(31, 30), 0);
  EXPECT_EQ(table(31)[0], 42u);
  EXPECT_EQ(tables.clear_page(30), 0);
  EXPECT_EQ(table(30)[0], 0u);
  ASSERT_EQ(tables.pin(kL4, 4), 0);
  EXPECT_LT(tables.clear_page(kL1), 0);
  EXPECT_LT(tables.copy_page(kL1, 30), 0);
  EXPECT_LT(tables.copy_page(30, layout.tables), 0);
  EXPECT_LT(tables.copy_page(layout.shared_info, 30), 0);
}

TEST_F(PageTablesTest, DescriptorTables) {
  table(30)[1] = 0x00af9b000000ffff;
  ASSERT_EQ(tables.take_descriptors(30), 0);
  EXPECT_LT(update(30, 2, 0x0000ec0000080000), 0);  // not as data
  EXPECT_LT(tables.pin(30, 1), 0);
  EXPECT_EQ(tables.write_descriptor(30 << kPageShift | 16, 0x00cf93000000ffff), 0);
  EXPECT_EQ(table(30)[2], 0x00cff3000000ffffu);
  EXPECT_LT(tables.write_descriptor(30 << kPageShift | 16, 0x0000ec0000080000), 0);
  EXPECT_LT(tables.write_descriptor(30 << kPageShift | 17, 0), 0);
  ASSERT_EQ(tables.pin(kL4, 4), -XEN_EINVAL);  // it maps the descriptors writable
  EXPECT_LT(tables.write_descriptor(layout.descriptors << kPageShift, 0), 0);
  EXPECT_LT(tables.write_descriptor(~u64{7}, 0), 0);
  tables.put_descriptors(30);
  expect_all_can_leave();
}

}  // namespace
}  // namespace bulkhead::abi::xen::pv
