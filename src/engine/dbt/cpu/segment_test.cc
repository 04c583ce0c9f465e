#include <gtest/gtest.h>

#include "engine/dbt/cpu/test_guest.h"

namespace bulkhead::engine::dbt {
namespace {

using G = TestGuest;

class SegmentTest : public testing::Test {
 protected:
  SegmentTest() { guest.protected_mode(); }
  Cpu& cpu() { return guest.cpu(); }
  CpuState& s() { return guest.s(); }
  std::optional<Fault> load(Seg seg, u16 selector) {
    return guest.attempt([&] { cpu().load_segment(seg, selector); });
  }
  TestGuest guest;
};

TEST_F(SegmentTest, DataLoadsByDescriptorAndPrivilege) {
  struct Row {
    unsigned access, cpl, rpl;
    int vector;  // -1: fine
  };
  const Row rows[] = {{0x92, 0, 0, -1},  {0x92, 0, 3, kGp}, {0x92, 3, 0, kGp}, {0xf2, 3, 3, -1},
                      {0xf2, 0, 3, -1},  {0xd2, 2, 1, -1},  {0xd2, 3, 0, kGp}, {0xd2, 1, 3, kGp},
                      {0x90, 0, 0, -1},  {0x98, 0, 0, kGp},                    // execute-only code
                      {0x9a, 0, 0, -1},  {0x9a, 3, 3, kGp}, {0x9e, 3, 3, -1},  // conforming code asks nothing
                      {0x12, 0, 0, kNp}, {0x82, 0, 0, kGp}, {0x00, 0, 0, kGp}};
  for (const Row& row : rows) {
    SCOPED_TRACE(&row - rows);
    guest.set_gdt(G::kFree, G::descriptor(row.access, 0xc, 0x12345678, 0x100));
    cpu().update_cpl(static_cast<u8>(row.cpl));
    const auto fault = load(kEs, static_cast<u16>(G::kFree | row.rpl));
    ASSERT_EQ(fault ? fault->vector : -1, row.vector);
    if (fault) {
      EXPECT_EQ(fault->error, G::kFree);
    } else {
      EXPECT_EQ(s().seg[kEs].base, 0x12345678u);
      EXPECT_EQ(s().seg[kEs].limit, 0x100fffu);
      EXPECT_EQ(s().seg[kEs].selector, G::kFree | row.rpl);
      EXPECT_TRUE(guest.peek(G::kGdt + G::kFree + 5, 1) & 1);  // accessed
    }
  }
}

TEST_F(SegmentTest, StackLoads) {
  struct Row {
    unsigned access, cpl, rpl;
    int vector;
  };
  for (const Row& row : {Row{0x92, 0, 0, -1}, Row{0x92, 0, 1, kGp}, Row{0xf2, 0, 0, kGp}, Row{0x90, 0, 0, kGp},
                         Row{0x9a, 0, 0, kGp}, Row{0xf2, 3, 3, -1}, Row{0x12, 0, 0, kSsFault}}) {
    guest.set_gdt(G::kFree, G::descriptor(row.access, 0xc));
    cpu().update_cpl(static_cast<u8>(row.cpl));
    const auto fault = load(kSs, static_cast<u16>(G::kFree | row.rpl));
    EXPECT_EQ(fault ? fault->vector : -1, row.vector) << std::hex << row.access << row.cpl << row.rpl;
  }
  EXPECT_EQ(load(kSs, 0)->vector, kGp);
}

TEST_F(SegmentTest, TablesEnd) {
  EXPECT_EQ(load(kDs, 0x200)->error, 0x200u);
  EXPECT_EQ(load(kDs, 0x0c)->error, 0x0cu);  // no LDT
  s().gdtr.limit = G::kData + 6;
  EXPECT_EQ(load(kDs, G::kData)->vector, kGp);
  s().gdtr = {0xd0000000, 0xffff};  // outside RAM: all ones, which is conforming code
  EXPECT_FALSE(load(kDs, G::kData));
}

TEST_F(SegmentTest, NullSegmentsFaultOnUse) {
  EXPECT_FALSE(load(kDs, 3));
  EXPECT_EQ(guest.attempt([&] { cpu().linear(kDs, 0, 1, Access::kRead); })->vector, kGp);
}

TEST_F(SegmentTest, LocalTable) {
  guest.set_gdt(G::kFree, G::descriptor(0x82, 0, 0x6000, 0xff));
  EXPECT_FALSE(guest.attempt([&] { cpu().load_ldt(G::kFree); }));
  guest.poke(0x6000 + 8, G::descriptor(0x92, 0xc, 0x777000, 0xfffff));
  EXPECT_FALSE(load(kFs, 0x0c));
  EXPECT_EQ(s().seg[kFs].base, 0x777000u);
  EXPECT_EQ(guest.attempt([&] { cpu().load_ldt(G::kData); })->vector, kGp);
  EXPECT_EQ(guest.attempt([&] { cpu().load_ldt(0x0c); })->vector, kGp);
  EXPECT_FALSE(guest.attempt([&] { cpu().load_ldt(0); }));
  EXPECT_EQ(load(kFs, 0x0c)->vector, kGp);
}

TEST_F(SegmentTest, TaskRegister) {
  EXPECT_FALSE(guest.attempt([&] { cpu().load_tr(G::kTss2Selector); }));
  EXPECT_EQ(s().tr.base, G::kTss2);
  EXPECT_EQ(guest.attempt([&] { cpu().load_tr(G::kTss2Selector); })->error, G::kTss2Selector);  // busy now
  EXPECT_EQ(guest.attempt([&] { cpu().load_tr(0); })->error, 0u);
  guest.set_gdt(G::kFree, G::descriptor(0x09, 0));
  EXPECT_EQ(guest.attempt([&] { cpu().load_tr(G::kFree); })->vector, kNp);
}

TEST_F(SegmentTest, LimitsAndTypes) {
  Segment& es = s().seg[kEs];
  const auto fault = [&](u64 offset, unsigned size, Access access) {
    return guest.attempt([&] { cpu().linear(kEs, offset, size, access); }).has_value();
  };
  es = {0x60, 0x493, 0xfff, 0x1000};
  EXPECT_FALSE(fault(0xffc, 4, Access::kWrite));
  EXPECT_TRUE(fault(0xffd, 4, Access::kWrite));
  es.attributes = 0x497;  // expand-down, 32-bit: above the limit
  EXPECT_TRUE(fault(0xfff, 1, Access::kRead));
  EXPECT_FALSE(fault(0x1000, 1, Access::kRead));
  EXPECT_FALSE(fault(0xffffffff, 1, Access::kRead));
  EXPECT_TRUE(fault(0xffffffff, 2, Access::kRead));
  es.attributes = 0x0097;  // 16-bit: up to 64 KiB
  EXPECT_FALSE(fault(0xfffe, 2, Access::kRead));
  EXPECT_TRUE(fault(0xffff, 2, Access::kRead));
  es.attributes = 0x491;
  EXPECT_TRUE(fault(0, 1, Access::kWrite));
  EXPECT_FALSE(fault(0, 1, Access::kRead));
  es.attributes = 0x499;
  EXPECT_TRUE(fault(0, 1, Access::kRead));
  EXPECT_EQ(guest
                .attempt([&] {
                  s().seg[kSs].limit = 10;
                  cpu().linear(kSs, 10, 2, Access::kRead);
                })
                ->vector,
            kSsFault);
}

TEST_F(SegmentTest, FarTransfersThroughACallGateCopyParameters) {
  guest.set_gdt(G::kFree, 0x4000 | u64{G::kCode32} << 16 | u64{0xec} << 40 | u64{2} << 32);
  guest.to_user(false);
  s().gpr[kRsp] = 0x6000;
  guest.poke(0x6000, 0x1111, 4);
  guest.poke(0x6004, 0x2222, 4);
  ASSERT_FALSE(guest.attempt([&] { cpu().far_call(G::kFree | 3, 0xdead, 4, 0x7007); }));
  EXPECT_EQ(s().cpl, 0);
  EXPECT_EQ(s().rip, 0x4000u);
  EXPECT_EQ(s().gpr[kRsp], G::kStack - 24);
  EXPECT_EQ(guest.peek(G::kStack - 24, 4), 0x7007u);
  EXPECT_EQ(guest.peek(G::kStack - 16, 4), 0x1111u);
  EXPECT_EQ(guest.peek(G::kStack - 12, 4), 0x2222u);
  EXPECT_EQ(guest.peek(G::kStack - 8, 4), 0x6000u);
  ASSERT_FALSE(guest.attempt([&] { cpu().far_return(4, 8); }));
  EXPECT_EQ(s().cpl, 3);
  EXPECT_EQ(s().rip, 0x7007u);
  EXPECT_EQ(s().gpr[kRsp], 0x6008u);
}

TEST_F(SegmentTest, FarJumpRefusals) {
  const auto jump = [&](u16 selector, u64 offset) {
    return guest.attempt([&] { cpu().far_jump(selector, offset, 4); });
  };
  EXPECT_EQ(jump(0, 0)->error, 0u);
  EXPECT_EQ(jump(G::kData, 0)->error, G::kData);
  EXPECT_EQ(jump(G::kUserCode32, 0)->vector, kGp);
  guest.set_gdt(G::kFree, G::descriptor(0x9a, 0x4, 0, 0xfff));
  EXPECT_FALSE(jump(G::kFree, 0xfff));
  EXPECT_EQ(jump(G::kFree, 0x1000)->error, 0u);
  guest.set_gdt(G::kFree, G::descriptor(0x1a, 0x4));
  EXPECT_EQ(jump(G::kFree, 0)->vector, kNp);
  guest.set_gdt(G::kFree, 0x4000 | u64{G::kCode32} << 16 | u64{0x0c} << 40);  // call gate, not present
  EXPECT_EQ(jump(G::kFree, 0)->vector, kNp);
  cpu().update_cpl(3);
  EXPECT_EQ(jump(G::kFree, 0)->vector, kGp);
}

TEST_F(SegmentTest, ReturnsThatFaultLeaveEverything) {
  s().gpr[kRsp] = 0x6000;
  guest.poke(0x6000, 0x1000, 4);
  guest.poke(0x6004, G::kUserData, 4);
  EXPECT_EQ(guest.attempt([&] { cpu().far_return(4, 0); })->error, G::kUserData & ~3u);
  EXPECT_EQ(s().gpr[kRsp], 0x6000u);
  EXPECT_EQ(s().rip, 0x7000u);
}

class LongSegmentTest : public testing::Test {
 protected:
  LongSegmentTest() { guest.long_mode(); }
  TestGuest guest;
};

TEST_F(LongSegmentTest, OnlyFsAndGsHaveABase) {
  CpuState& s = guest.s();
  for (Segment& segment : s.seg) segment.base = 0x1000;
  EXPECT_EQ(guest.cpu().linear(kDs, 0x10, 8, Access::kWrite), 0x10u);
  EXPECT_EQ(guest.cpu().linear(kGs, 0x10, 8, Access::kWrite), 0x1010u);
  EXPECT_EQ(guest.attempt([&] { guest.cpu().linear(kDs, 0x7ffffffffff9, 8, Access::kRead); })->vector, kGp);
  EXPECT_EQ(guest.attempt([&] { guest.cpu().linear(kSs, 0x800000000000, 8, Access::kRead); })->vector, kSsFault);
  EXPECT_EQ(guest.attempt([&] { guest.cpu().linear(kGs, 0x7fffffffefff, 2, Access::kRead); })->vector, kGp);
}

TEST_F(LongSegmentTest, SystemDescriptorsHaveSixteenBytes) {
  guest.set_gdt(G::kFree, G::descriptor(0x89, 0, 0x6000, 0xfff), 0x12);
  EXPECT_FALSE(guest.attempt([&] { guest.cpu().load_tr(G::kFree); }));
  EXPECT_EQ(guest.s().tr.base, 0x1200006000u);
  guest.set_gdt(G::kFree, G::descriptor(0x89, 0, 0x6000, 0xfff), 0x12345678);
  EXPECT_EQ(guest.attempt([&] { guest.cpu().load_tr(G::kFree); })->vector, kGp);  // base not canonical
  guest.set_gdt(G::kFree, G::descriptor(0x89, 0, 0x6000, 0xfff), u64{0x1f} << 40);
  EXPECT_EQ(guest.attempt([&] { guest.cpu().load_tr(G::kFree); })->vector, kGp);
  guest.s().gdtr.limit = G::kFree + 7;
  EXPECT_EQ(guest.attempt([&] { guest.cpu().load_tr(G::kFree); })->vector, kGp);
}

TEST_F(LongSegmentTest, SixtyFourBitCallGate) {
  guest.set_gdt(G::kFree, 0x4000 | u64{G::kCode64} << 16 | u64{0xec} << 40, 0xffffffff);
  guest.to_user();
  guest.s().gpr[kRsp] = 0x6000;
  ASSERT_FALSE(guest.attempt([&] { guest.cpu().far_call(G::kFree, 0, 8, 0x7007); }));
  EXPECT_EQ(guest.s().rip, 0xffffffff00004000u);
  EXPECT_EQ(guest.s().gpr[kRsp], G::kStack - 32);
  EXPECT_EQ(guest.peek(G::kStack - 16), 0x6000u);
  ASSERT_FALSE(guest.attempt([&] { guest.cpu().far_return(8, 0); }));
  EXPECT_EQ(guest.s().cpl, 3);
  EXPECT_EQ(guest.s().gpr[kRsp], 0x6000u);
  guest.set_gdt(G::kFree, 0x4000 | u64{G::kCode32} << 16 | u64{0xec} << 40, 0);
  EXPECT_EQ(guest.attempt([&] { guest.cpu().far_call(G::kFree, 0, 8, 0); })->error, G::kCode32);
}

TEST_F(LongSegmentTest, NullStackOnlyInRing0) {
  EXPECT_FALSE(guest.attempt([&] { guest.cpu().load_segment(kSs, 0); }));
  EXPECT_EQ(guest.attempt([&] { guest.cpu().load_segment(kSs, 1); })->vector, kGp);
  guest.to_user();
  EXPECT_EQ(guest.attempt([&] { guest.cpu().load_segment(kSs, 3); })->vector, kGp);
}

TEST(RealSegmentTest, LoadsAndLimits) {
  TestGuest guest;
  EXPECT_FALSE(guest.attempt([&] { guest.cpu().load_segment(kDs, 0xffff); }));
  EXPECT_EQ(guest.cpu().linear(kDs, 0xffff, 1, Access::kWrite), 0xffff0u + 0xffff);
  EXPECT_EQ(guest.attempt([&] { guest.cpu().linear(kDs, 0xffff, 2, Access::kRead); })->vector, kGp);
  EXPECT_EQ(guest.attempt([&] { guest.cpu().linear(kSs, 0xffff, 2, Access::kRead); })->vector, kSsFault);
}

}  // namespace
}  // namespace bulkhead::engine::dbt
