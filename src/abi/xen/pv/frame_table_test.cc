#include "abi/xen/pv/frame_table.h"

#include <gtest/gtest.h>
#include <xen/errno.h>

#include "abi/xen/pv/testing/small_machine.h"

namespace bulkhead::abi::xen::pv {
namespace {

using namespace testing;

struct FrameTableTest : ::testing::Test, SmallMemory {
  FrameTable frames{memory, layout.ram_frames, layout.all_frames};
  std::vector<u64> stopped;
  FrameTableTest() {
    frames.set_owner(layout.shared_info, Owner::kShared);
    frames.set_stop_writes([this](u64 frame) { stopped.push_back(frame); });
  }
  void expect_nothing_counted() {
    for (u64 i = 0; i < frames.size(); ++i) {
      EXPECT_EQ(frames[i].type_uses, 0u) << i;
      EXPECT_EQ(frames[i].references, 0u) << i;
    }
  }
};

TEST_F(FrameTableTest, ATreeIsCountedAndLetGo) {
  ASSERT_EQ(frames.get_type(kL4, FrameType::kL4), 0);
  EXPECT_EQ(frames[kL1].type, FrameType::kL1);
  EXPECT_EQ(frames[kL1].type_uses, 1u);
  EXPECT_EQ(frames[kL1].references, 2u);  // by its parent, and mapped for reading
  EXPECT_EQ(frames[100].type, FrameType::kData);
  EXPECT_EQ(frames[100].references, 1u);
  frames.put_type(kL4);
  expect_nothing_counted();
}

TEST_F(FrameTableTest, AFailureAnywhereLeavesNothingCounted) {
  const struct {
    u64 table;
    unsigned index;
    u64 entry;
    const char* what;
  } kBad[] = {
      {kL1, 511, make_entry(kL2, kFlags), "a table, writable"},
      {kL1, 511, make_entry(layout.tables, kReadOnly), "the hypervisor's frame"},
      {kL1, 511, make_entry(layout.machine_to_physical, kFlags), "the hypervisor's frame, writable"},
      {kL1, 511, make_entry(layout.all_frames, kReadOnly), "no frame"},
      {kL1, 511, make_entry(0xfffffffff, kReadOnly), "far beyond"},
      {kL1, 511, make_entry(9, kFlags | kLarge), "PAT"},
      {kL1, 511, make_entry(9, kFlags | kCacheDisable), "uncached"},
      {kL1, 511, make_entry(9, kFlags | kWriteThrough), "write-through"},
      {kL2, 511, make_entry(0, kFlags | kLarge), "2 MiB"},
      {kL3, 511, make_entry(0, kFlags | kLarge), "1 GiB"},
      {kL4, 200, make_entry(0, kFlags | kLarge), "512 GiB"},
      {kL2, 511, make_entry(kL2, kFlags), "itself"},
      {kL2, 511, make_entry(kL3, kFlags), "its parent"},
      {kL4, 510, make_entry(kL4, kFlags), "a linear table"},
      {kL4, 510, make_entry(kL1, kFlags), "a table of another level"},
      {kL4, 510, make_entry(layout.tables, kFlags), "the hypervisor's table"},
      {kL3, 511, make_entry(layout.shared_info, kFlags), "a shared page as a table"},
  };
  for (const auto& bad : kBad) {
    u64& entry = table(bad.table)[bad.index];
    const u64 good = entry;
    entry = bad.entry;
    EXPECT_LT(frames.get_type(kL4, FrameType::kL4), 0) << bad.what;
    expect_nothing_counted();
    entry = good;
  }
  EXPECT_EQ(frames.get_type(kL4, FrameType::kL4), 0);
}

TEST_F(FrameTableTest, TheHypervisorsSlotsAreNotTheGuests) {
  frames.set_xen_slots({make_entry(layout.tables, kFlags), make_entry(layout.tables + 1, kFlags)});
  for (unsigned i = 0; i < kXenSlots; ++i)
    table(kL4)[kFirstXenSlot + i] = make_entry(layout.tables + 2, kFlags | kLarge);
  ASSERT_EQ(frames.get_type(kL4, FrameType::kL4), 0);
  for (unsigned i = 0; i < kXenSlots; ++i) {
    const u64 expected = i == 0   ? make_entry(layout.tables, kFlags)
                         : i == 4 ? make_entry(layout.tables + 1, kFlags)
                                  : 0;
    EXPECT_EQ(table(kL4)[kFirstXenSlot + i], expected) << i;
  }
  frames.put_type(kL4);
  expect_nothing_counted();
}

TEST_F(FrameTableTest, WritableOrTableButNotBoth) {
  ASSERT_EQ(frames.get_type(20, FrameType::kData), 0);
  EXPECT_EQ(frames.get_type(20, FrameType::kL1), -XEN_EBUSY);
  EXPECT_EQ(frames.get_type(20, FrameType::kDescriptors), -XEN_EBUSY);
  frames.put_type(20);
  ASSERT_EQ(frames.get_type(20, FrameType::kL1), 0);
  EXPECT_EQ(frames.get_type(20, FrameType::kData), -XEN_EINVAL);
  EXPECT_LT(frames.get_type(20, FrameType::kL2), 0);
  EXPECT_EQ(frames.get_type(20, FrameType::kL1), 0);
  frames.put_type(20);
  EXPECT_EQ(frames.get_type(20, FrameType::kData), -XEN_EINVAL);  // one use is left
  frames.put_type(20);
  EXPECT_EQ(frames.get_type(20, FrameType::kData), 0);
}

TEST_F(FrameTableTest, OldWritableTranslationsEndBeforeTheContentsAreJudged) {
  ASSERT_EQ(frames.get_type(20, FrameType::kData), 0);
  frames.put_type(20);
  EXPECT_TRUE(stopped.empty());
  frames.set_stop_writes([this](u64 frame) {
    stopped.push_back(frame);
    table(frame)[0] = make_entry(layout.tables, kFlags);  // the last write through the old translation
  });
  EXPECT_EQ(frames.get_type(20, FrameType::kL1), -XEN_EPERM);
  EXPECT_EQ(stopped, std::vector<u64>{20});
}

TEST_F(FrameTableTest, ASharedPageIsMappedButNeverATable) {
  EXPECT_EQ(frames.get_entry(1, make_entry(layout.shared_info, kFlags)), 0);
  EXPECT_EQ(frames[layout.shared_info].references, 1u);
  frames.put_entry(1, make_entry(layout.shared_info, kFlags));
  for (const FrameType type : {FrameType::kL1, FrameType::kL4, FrameType::kData, FrameType::kDescriptors})
    EXPECT_EQ(frames.get_type(layout.shared_info, type), -XEN_EINVAL);
  expect_nothing_counted();
}

TEST_F(FrameTableTest, FramesThatAreGoneAreNobodys) {
  frames.set_owner(20, Owner::kNobody);
  EXPECT_LT(frames.get_entry(1, make_entry(20, kReadOnly)), 0);
  EXPECT_LT(frames.get_type(20, FrameType::kL1), 0);
  EXPECT_LT(frames.get_type(~u64{0}, FrameType::kL1), 0);
}

TEST_F(FrameTableTest, CountsDoNotWrap) {
  frames[20].type = FrameType::kData;
  frames[20].type_uses = ~u32{0};
  EXPECT_LT(frames.get_entry(1, make_entry(20, kFlags)), 0);
  EXPECT_EQ(frames[20].type_uses, ~u32{0});
  frames.put_entry(1, make_entry(21, kFlags));  // one that was never counted
  EXPECT_EQ(frames[21].references, 0u);
  EXPECT_EQ(frames[21].type_uses, 0u);
}

TEST_F(FrameTableTest, EntriesBecomeRing3s) {
  table(kL1)[511] = make_entry(30, kPresent | kWritable);
  table(kL1)[510] = make_entry(30, 0);
  ASSERT_EQ(frames.get_type(kL4, FrameType::kL4), 0);
  EXPECT_EQ(table(kL1)[511], make_entry(30, kPresent | kWritable | kUser));
  EXPECT_EQ(table(kL1)[510], make_entry(30, 0));
}

TEST(Descriptors, GatesAndSystemSegmentsAreRefused) {
  EXPECT_EQ(checked_descriptor(0), 0u);
  EXPECT_EQ(checked_descriptor(0x00af9b000000ffff), 0x00affb000000ffffu);  // ring 0 code becomes ring 3's
  EXPECT_EQ(checked_descriptor(0x00cf93000000ffff), 0x00cff3000000ffffu);
  EXPECT_TRUE(checked_descriptor(0x00007f0000000000));  // not present: whatever it is
  for (unsigned type = 1; type < 16; ++type)
    for (unsigned privilege = 0; privilege < 4; ++privilege)
      EXPECT_FALSE(checked_descriptor(u64{1} << 47 | u64{privilege} << 45 | u64{type} << 40)) << type;
}

TEST_F(FrameTableTest, ATableOfDescriptorsWithAGateIsRefused) {
  table(20)[5] = 0x0000ec0000080000;  // a call gate for ring 3
  EXPECT_EQ(frames.get_type(20, FrameType::kDescriptors), -XEN_EINVAL);
  table(20)[5] = 0x00cf93000000ffff;
  EXPECT_EQ(frames.get_type(20, FrameType::kDescriptors), 0);
  EXPECT_EQ(table(20)[5], 0x00cff3000000ffffu);
  frames.put_type(20);
  expect_nothing_counted();
}

}  // namespace
}  // namespace bulkhead::abi::xen::pv
