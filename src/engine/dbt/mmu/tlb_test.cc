#include <gtest/gtest.h>

#include "engine/dbt/cpu/test_guest.h"

namespace bulkhead::engine::dbt {
namespace {

constexpr u64 kAt = 0x40000000, kGpa = 0x300000;

struct Observer final : Cpu::CodeObserver {
  bool code_written(u64 gpa, u64) override {
    written.push_back(align_down(gpa, kPageSize));
    return false;
  }
  void mappings_changed(bool global) override { (global ? global_flushes : flushes)++; }
  void mapping_changed(u64 linear) override { pages.push_back(linear); }
  std::vector<u64> written, pages;
  int flushes = 0, global_flushes = 0;
};

class TlbTest : public testing::Test {
 protected:
  TlbTest() {
    guest.long_mode();
    guest.map(kAt, kGpa | 7);
    guest.map(kAt + kPageSize, (kGpa + kPageSize) | 7);
    cpu().code_observer = &observer;
  }
  ~TlbTest() override { cpu().code_observer = nullptr; }
  Cpu& cpu() { return guest.cpu(); }
  const TlbEntry& entry(u64 linear, TlbSpace space = TlbSpace::kSupervisorAc) {
    return guest.s().tlb[static_cast<unsigned>(space)][tlb_slot(linear)];
  }
  void remap(u64 linear, u64 gpa) { guest.map(linear, gpa | 7); }
  u64 seen(u64 linear) { return cpu().load(linear, 8); }
  TestGuest guest;
  Observer observer;
};

TEST_F(TlbTest, CleanPagesHaveNoWriteTag) {
  EXPECT_NE(cpu().tlb_fill(kAt, 8, Access::kRead), nullptr);
  EXPECT_EQ(entry(kAt).read_tag, kAt);
  EXPECT_EQ(entry(kAt).write_tag, kNoTag);
  EXPECT_NE(cpu().tlb_fill(kAt, 8, Access::kWrite), nullptr);
  EXPECT_EQ(entry(kAt).write_tag, kAt);
  EXPECT_EQ(entry(kAt).addend + kAt, reinterpret_cast<u64>(guest.shared.ram(kGpa)));
}

TEST_F(TlbTest, FillRefusesWhatIsNotOnePieceOfRam) {
  EXPECT_EQ(cpu().tlb_fill(kAt + 0xffc, 8, Access::kRead), nullptr);
  EXPECT_EQ(cpu().tlb_fill(0x800000000000, 8, Access::kRead), nullptr);  // not canonical
  guest.map(kAt, 0xd0000000 | 7);
  EXPECT_EQ(cpu().tlb_fill(kAt, 8, Access::kRead), nullptr);
  EXPECT_EQ(entry(kAt).read_tag, kNoTag);
}

TEST_F(TlbTest, ReadOnlyPagesGetAWriteTagOnlyWithoutWp) {
  guest.map(kAt, kGpa | 0x65);
  cpu().tlb_fill(kAt, 8, Access::kRead);
  EXPECT_EQ(entry(kAt).write_tag, kNoTag);
  cpu().write_cr(0, guest.s().cr0 & ~kCr0Wp);
  cpu().tlb_fill(kAt, 8, Access::kRead);
  EXPECT_EQ(entry(kAt).write_tag, kAt);
  cpu().write_cr(0, guest.s().cr0 | kCr0Wp);
  EXPECT_EQ(guest.attempt([&] { cpu().store(kAt, 1, 0); })->error, 3u);
}

TEST_F(TlbTest, StaysUntilFlushed) {
  guest.poke(kGpa, 1);
  guest.poke(kGpa + 0x10000, 2);
  EXPECT_EQ(seen(kAt), 1u);
  remap(kAt, kGpa + 0x10000);
  EXPECT_EQ(seen(kAt), 1u);
  cpu().flush_tlb_page(kAt + 0x123);
  EXPECT_EQ(seen(kAt), 2u);
  EXPECT_FALSE(observer.pages.empty());
  remap(kAt, kGpa);
  cpu().write_cr(3, TestGuest::kTables);
  EXPECT_EQ(seen(kAt), 1u);
}

TEST_F(TlbTest, ForgetsWhatCameFromOneEntry) {
  guest.map(kAt + 512 * kPageSize, kGpa | 7);  // the same number in another table
  guest.map(kAt + kPageSize, kGpa | 7);
  for (const u64 linear : {kAt, kAt + kPageSize, kAt + 512 * kPageSize}) seen(linear);
  cpu().forget_entry((kAt >> 12 & 511) + 1, kGpa + kPageSize);  // mapped something else
  EXPECT_EQ(entry(kAt + kPageSize).read_tag, kAt + kPageSize);
  cpu().forget_entry(kAt >> 12 & 511, kGpa);
  EXPECT_EQ(entry(kAt).read_tag, kNoTag);
  EXPECT_EQ(entry(kAt + 512 * kPageSize).read_tag, kNoTag);
  EXPECT_EQ(entry(kAt + kPageSize).read_tag, kAt + kPageSize);
  EXPECT_TRUE(observer.pages.empty());
}

TEST_F(TlbTest, GlobalPagesOutliveCr3) {
  guest.map(kAt, kGpa | 0x107);
  guest.poke(kGpa, 1);
  guest.poke(kGpa + 0x10000, 2);
  EXPECT_EQ(seen(kAt), 1u);
  guest.map(kAt, (kGpa + 0x10000) | 0x107);
  cpu().write_cr(3, TestGuest::kTables);
  EXPECT_EQ(seen(kAt), 1u);
  EXPECT_EQ(observer.global_flushes, 0);
  cpu().write_cr(4, guest.s().cr4 & ~kCr4Pge);
  EXPECT_EQ(seen(kAt), 2u);
  EXPECT_EQ(observer.global_flushes, 1);
}

TEST_F(TlbTest, SlotThatWasGlobalIsFlushedWhenItNoLongerIs) {
  const u64 alias = kAt + u64{kTlbEntries} * kPageSize;
  guest.map(kAt, kGpa | 7);
  seen(kAt);
  guest.map(alias, kGpa | 0x107);
  seen(alias);
  cpu().flush_tlb(false);
  EXPECT_EQ(entry(alias).read_tag, alias);
  seen(kAt);
  cpu().flush_tlb(false);
  EXPECT_EQ(entry(kAt).read_tag, kNoTag);
}

TEST_F(TlbTest, MoreFillsThanTheLogHolds) {
  for (u64 i = 0; i < 1000; ++i) {
    guest.map(kAt + i * kPageSize, kGpa | 7);
    seen(kAt + i * kPageSize);
  }
  cpu().flush_tlb(false);
  for (u64 i = 0; i < 1000; ++i) EXPECT_EQ(entry(kAt + i * kPageSize).read_tag, kNoTag);
}

TEST_F(TlbTest, InvlpgDropsAllOfALargePage) {
  const u64 at = 0x80000000;
  guest.map(at, 0x200087, 2);
  guest.poke(0x200000 + 0x5000, 1);
  guest.poke(0x400000 + 0x5000, 2);
  EXPECT_EQ(seen(at + 0x5000), 1u);
  EXPECT_EQ(cpu().translate_code(at + 0x5000), 0x205000u);
  guest.map(at, 0x400087, 2);
  cpu().flush_tlb_page(at + 0x1ff000);  // another page of it
  EXPECT_EQ(seen(at + 0x5000), 2u);
  EXPECT_EQ(cpu().translate_code(at + 0x5000), 0x405000u);
}

TEST_F(TlbTest, InvlpgOfASmallPageLeavesTheOthers) {
  seen(kAt);
  seen(kAt + kPageSize);
  cpu().flush_tlb_page(kAt);
  EXPECT_EQ(entry(kAt).read_tag, kNoTag);
  EXPECT_EQ(entry(kAt + kPageSize).read_tag, kAt + kPageSize);
}

TEST_F(TlbTest, Invpcid) {
  guest.poke(kGpa, 1);
  guest.poke(kGpa + 0x10000, 2);
  for (u64 type = 0; type < 4; ++type) {
    remap(kAt, kGpa);
    cpu().flush_tlb(true);
    EXPECT_EQ(seen(kAt), 1u);
    remap(kAt, kGpa + 0x10000);
    EXPECT_FALSE(guest.attempt([&] { cpu().invpcid(type, 0, kAt); }));
    EXPECT_EQ(seen(kAt), 2u) << type;
  }
  EXPECT_EQ(guest.attempt([&] { cpu().invpcid(4, 0, 0); })->vector, kGp);
  EXPECT_EQ(guest.attempt([&] { cpu().invpcid(0, 0, 0x800000000000); })->vector, kGp);
  EXPECT_EQ(guest.attempt([&] { cpu().invpcid(1, 0x1000, 0); })->vector, kGp);
  EXPECT_EQ(guest.attempt([&] { cpu().invpcid(1, 1, 0); })->vector, kGp);  // CR4.PCIDE is off
}

TEST_F(TlbTest, SmapSpacesFollowAc) {
  cpu().write_cr(4, guest.s().cr4 | kCr4Smap);
  EXPECT_EQ(guest.s().tlb_space, TlbSpace::kSupervisor);
  EXPECT_EQ(guest.attempt([&] { seen(kAt); })->error, 1u);
  cpu().write_rflags(kAc, kAc);
  EXPECT_EQ(guest.s().tlb_space, TlbSpace::kSupervisorAc);
  EXPECT_FALSE(guest.attempt([&] { seen(kAt); }));
  EXPECT_EQ(guest.attempt([&] { cpu().load_system(kAt, 8); })->error, 1u);  // AC is not for implicit accesses
  cpu().write_rflags(0, kAc);
  EXPECT_EQ(guest.attempt([&] { seen(kAt); })->error, 1u);
}

// ---- code pages

TEST_F(TlbTest, WritesToCodePagesAreNoticedOnceAndThenDirect) {
  cpu().store(kAt, 8, 0);
  guest.shared.mark_code_page(cpu(), kGpa);
  EXPECT_EQ(entry(kAt).write_tag, kNoTag);
  EXPECT_EQ(cpu().tlb_fill(kAt, 8, Access::kWrite), nullptr);
  EXPECT_NE(cpu().tlb_fill(kAt, 8, Access::kRead), nullptr);
  cpu().store(kAt + 16, 4, 0xdeadbeef);
  EXPECT_EQ(guest.peek(kGpa + 16, 4), 0xdeadbeefu);
  EXPECT_EQ(observer.written, std::vector<u64>{kGpa});
  cpu().store(kAt + 16, 4, 1);
  EXPECT_EQ(observer.written.size(), 1u);
  EXPECT_EQ(entry(kAt).write_tag, kAt);
}

TEST_F(TlbTest, AtomicOnACodePageIsNoticedAfterwardsToo) {
  guest.shared.mark_code_page(cpu(), kGpa);
  EXPECT_NE(cpu().atomic_host(kAt, 8), nullptr);
  EXPECT_EQ(observer.written.size(), 1u);
  guest.shared.mark_code_page(cpu(), kGpa);  // translated again before the write was seen
  cpu().instruction_done();
  EXPECT_EQ(observer.written.size(), 2u);
}

TEST_F(TlbTest, CrossingStoreIntoACodePage) {
  guest.shared.mark_code_page(cpu(), kGpa + kPageSize);
  cpu().store(kAt + 0xffc, 8, 0x1122334455667788);
  EXPECT_EQ(observer.written, std::vector<u64>{kGpa + kPageSize});
  EXPECT_EQ(guest.peek(kGpa + 0xffc), 0x1122334455667788u);
}

}  // namespace
}  // namespace bulkhead::engine::dbt
