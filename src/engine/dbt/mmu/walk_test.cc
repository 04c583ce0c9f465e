#include <gtest/gtest.h>

#include <random>

#include "engine/dbt/cpu/test_guest.h"

namespace bulkhead::engine::dbt {
namespace {

constexpr u64 kAt = 0x40000000, kGpa = 0x300000;
constexpr u64 kA = 0x20, kD = 0x40, kNx = u64{1} << 63;

class WalkTest : public testing::Test {
 protected:
  WalkTest() { guest.long_mode(); }
  Cpu& cpu() { return guest.cpu(); }
  CpuState& s() { return guest.s(); }
  void changed() {
    cpu().mode_changed();
    cpu().flush_tlb(true);
  }
  TestGuest guest;
};

// The rules once more, as a table of what forbids an access [SDM-3A §4.6.1].
struct Case {
  bool user_access, user_page, writable, nx, wp, smep, smap, ac;
  Access access;
  bool allowed() const {
    if (user_access) {
      if (!user_page) return false;
      if (access == Access::kWrite) return writable;
      return access == Access::kRead || !nx;
    }
    if (access == Access::kExecute) return !nx && !(user_page && smep);
    if (user_page && smap && !ac) return false;
    return access == Access::kRead || writable || !wp;
  }
  u32 error() const {
    return 1u | (access == Access::kWrite ? 2u : 0) | (user_access ? 4u : 0) | (access == Access::kExecute ? 16u : 0);
  }
};

TEST_F(WalkTest, EveryCombinationOfPermissions) {
  for (unsigned n = 0; n < 3 * 256; ++n) {
    const Case c{bit(n, 0), bit(n, 1), bit(n, 2),
                 bit(n, 3), bit(n, 4), bit(n, 5),
                 bit(n, 6), bit(n, 7), static_cast<Access>(n >> 8)};
    SCOPED_TRACE(n);
    guest.map(kAt, kGpa | 1 | (c.writable ? 2 : 0) | (c.user_page ? 4 : 0) | (c.nx ? kNx : 0));
    for (unsigned level = 2; level <= 4; ++level) {
      const u64 at = guest.entry_at(kAt, level);
      guest.poke(at, guest.peek(at) & ~kA);
    }
    s().cr0 = 0x80000031 | (c.wp ? kCr0Wp : 0);
    s().cr4 = kCr4Pae | (c.smep ? kCr4Smep : 0) | (c.smap ? kCr4Smap : 0);
    s().rflags = 2 | (c.ac ? kAc : 0);
    cpu().update_cpl(c.user_access ? 3 : 0);
    changed();

    const auto fault = guest.attempt([&] {
      if (c.access == Access::kRead) cpu().load(kAt + 8, 4);
      if (c.access == Access::kWrite) cpu().store(kAt + 8, 4, n);
      if (c.access == Access::kExecute) cpu().translate_code(kAt + 8);
    });
    ASSERT_EQ(!fault, c.allowed());
    const u64 leaf = guest.peek(guest.entry_at(kAt, 1));
    EXPECT_EQ((leaf & kD) != 0, c.allowed() && c.access == Access::kWrite);
    for (unsigned level = 1; level <= 4; ++level)
      EXPECT_EQ((guest.peek(guest.entry_at(kAt, level)) & kA) != 0, c.allowed()) << level;
    if (!fault) continue;
    EXPECT_EQ(fault->vector, kPageFault);
    EXPECT_EQ(fault->error, c.error());
    EXPECT_EQ(fault->address, kAt + 8);
    // The TLB's answer is the same.
    if (c.access != Access::kExecute) {
      EXPECT_EQ(cpu().tlb_fill(kAt + 8, 4, c.access), nullptr);
    }
  }
}

TEST_F(WalkTest, PermissionsOfAllLevelsCount) {
  for (unsigned level = 1; level <= 4; ++level)
    for (const u64 missing : {u64{1}, u64{2}, u64{4}}) {
      guest.map(kAt, kGpa | 7);
      const u64 at = guest.entry_at(kAt, level);
      const u64 before = guest.peek(at);
      guest.poke(at, before & ~missing);
      cpu().update_cpl(3);
      changed();
      const auto fault = guest.attempt([&] { cpu().store(kAt, 1, 0); });
      ASSERT_TRUE(fault) << level << " " << missing;
      EXPECT_EQ(fault->error, missing == 1 ? 6u : 7u);
      guest.poke(at, before);
    }
}

TEST_F(WalkTest, NoExecuteOfAnUpperLevelCounts) {
  guest.map(kAt, kGpa | 7);
  guest.poke(guest.entry_at(kAt, 3), guest.peek(guest.entry_at(kAt, 3)) | kNx);
  EXPECT_EQ(guest.attempt([&] { cpu().translate_code(kAt); })->error, 0x11u);
  EXPECT_FALSE(guest.attempt([&] { cpu().load(kAt, 8); }));
}

TEST_F(WalkTest, ReservedBitsAtEveryLevel) {
  struct Row {
    unsigned level;
    u64 bits;
    bool large;
  };
  constexpr u64 kPhysical = u64{1} << 40;
  const Row rows[] = {{1, kPhysical, false}, {2, kPhysical, false},     {3, kPhysical, false},
                      {4, kPhysical, false}, {1, u64{1} << 51, false},  {4, 0x80, false},
                      {2, 1u << 13, true},   {2, 1u << 20, true},       {3, 1u << 13, true},
                      {3, 1u << 29, true},   {2, kPhysical << 1, true}, {3, kPhysical << 2, true}};
  for (const Row& row : rows) {
    TestGuest fresh;
    fresh.long_mode();
    fresh.map(kAt, kGpa | 7);
    const u64 at = fresh.entry_at(kAt, row.level);
    fresh.poke(at, (row.large ? u64{0x87} : fresh.peek(at)) | row.bits);
    fresh.cpu().update_cpl(3);
    const auto fault = fresh.attempt([&] { fresh.cpu().store(kAt, 4, 1); });
    ASSERT_TRUE(fault) << row.level << " " << std::hex << row.bits;
    EXPECT_EQ(fault->error, 0xfu) << row.level << " " << std::hex << row.bits;
  }
}

TEST_F(WalkTest, NxIsReservedWithoutNxe) {
  s().efer &= ~kEferNxe;
  guest.map(kAt, kGpa | 7 | kNx);
  EXPECT_EQ(guest.attempt([&] { cpu().load(kAt, 4); })->error, 9u);
}

TEST_F(WalkTest, LargePages) {
  guest.map(kAt, 0x200000 | 0x87, 2);
  guest.map(u64{1} << 39, 0x0 | 0x87, 3);
  EXPECT_EQ(cpu().walk(kAt + 0x12345, Access::kRead, false).gpa, 0x212345u);
  EXPECT_EQ(cpu().walk(kAt + 0x12345, Access::kRead, false).page_size, 2_MiB);
  EXPECT_EQ(cpu().walk((u64{1} << 39) + 0x3456789, Access::kRead, false).gpa, 0x3456789u);
  EXPECT_EQ(cpu().walk((u64{1} << 39) + 0x3456789, Access::kRead, false).page_size, 1_GiB);
}

TEST_F(WalkTest, UpperHalfAddresses) {
  const u64 at = 0xffffffff80000000;
  guest.map(at, kGpa | 3);
  cpu().store(at + 0x10, 8, 0x1122334455667788);
  EXPECT_EQ(guest.peek(kGpa + 0x10), 0x1122334455667788u);
}

TEST_F(WalkTest, ProbeSetsNoBits) {
  guest.map(kAt, kGpa | 7);
  EXPECT_TRUE(cpu().walk(kAt, Access::kWrite, false, true).ok);
  EXPECT_EQ(guest.peek(guest.entry_at(kAt, 1)) & (kA | kD), 0u);
}

class LegacyWalkTest : public testing::Test {
 protected:
  LegacyWalkTest() {
    guest.protected_mode();
    guest.s().cr0 |= kCr0Pg | kCr0Wp;
    guest.s().cr3 = TestGuest::kTables;
  }
  u64 gpa(u64 linear) {
    const auto t = guest.cpu().walk(linear, Access::kRead, false, true);
    return t.ok ? t.gpa : ~u64{0};
  }
  TestGuest guest;
};

TEST_F(LegacyWalkTest, ThirtyTwoBit) {
  guest.poke(TestGuest::kTables + 4 * 1, 0x20007, 4);
  guest.poke(0x20000 + 4 * 2, 0x123007, 4);
  EXPECT_EQ(gpa(0x00402abc), 0x123abcu);
  EXPECT_EQ(gpa(0x00403000), ~u64{0});
  guest.poke(TestGuest::kTables + 4 * 2, 0x00400087 | 0x3 << 13, 4);
  guest.poke(0x406000 + 4 * 1, 0x777007, 4);
  EXPECT_EQ(gpa(0x00801234), 0x777234u);  // PS means nothing without CR4.PSE (bits 13 and 14 select another table)
}

TEST_F(LegacyWalkTest, FourMegabytePagesReachBeyondFourGigabytes) {
  guest.s().cr4 = kCr4Pse;
  guest.poke(TestGuest::kTables + 4 * 2, 0x00400087 | 0x3 << 13, 4);
  EXPECT_EQ(gpa(0x00801234), 0x300401234u);
  guest.poke(TestGuest::kTables + 4 * 2, 0x00400087 | 1 << 21, 4);  // reserved
  EXPECT_EQ(guest.cpu().walk(0x00801234, Access::kRead, false).error, 9u);
}

TEST_F(LegacyWalkTest, Pae) {
  guest.s().cr4 = kCr4Pae;
  guest.poke(TestGuest::kTables + 8 * 3, 0x20001);
  guest.poke(0x20000 + 8 * 1, 0x21007);
  guest.poke(0x20000 + 8 * 2, 0x600087);
  guest.poke(0x21000 + 8 * 5, 0x123007);
  EXPECT_EQ(gpa(0xc0205abc), 0x123abcu);
  EXPECT_EQ(gpa(0xc0412345), 0x612345u);
  EXPECT_EQ(gpa(0x80000000), ~u64{0});
  for (const u64 reserved : {u64{1} << 52, u64{1} << 62, u64{1} << 40, u64{1} << 63}) {
    guest.poke(0x21000 + 8 * 5, 0x123007 | reserved);
    EXPECT_EQ(guest.cpu().walk(0xc0205abc, Access::kRead, true).error, 0xdu) << std::hex << reserved;
  }
}

TEST_F(LegacyWalkTest, LoadingCr3ChecksThePdptes) {
  guest.s().cr4 = kCr4Pae;
  guest.poke(TestGuest::kTables, 0x20001 | 1u << 1);
  EXPECT_EQ(guest.attempt([&] { guest.cpu().write_cr(3, TestGuest::kTables); })->vector, kGp);
  guest.poke(TestGuest::kTables, 0x20001);
  EXPECT_FALSE(guest.attempt([&] { guest.cpu().write_cr(3, TestGuest::kTables); }));
}

TEST_F(LegacyWalkTest, AddressesWrapAtFourGigabytes) {
  guest.s().cr0 &= ~kCr0Pg;
  guest.poke(0, 0xbb, 1);
  guest.cpu().flush_tlb(true);
  // The last byte below 4 GiB is not RAM: its piece is an exit, the other is read from address 0.
  EXPECT_EQ(guest.attempt([&] { guest.cpu().load(0xffffffff, 2); })->vector, 0xff);
  guest.cpu().io_log.value[guest.cpu().io_log.done++] = 0xaa;
  EXPECT_EQ(guest.cpu().load(0xffffffff, 2), 0xbbaau);
}

// ---- bad guests

TEST_F(WalkTest, TablesOutsideRamReadAsAllOnes) {
  for (const u64 cr3 : {u64{0x100000000}, TestGuest::kRam, (u64{1} << 40) - kPageSize}) {
    s().cr3 = cr3;
    changed();
    EXPECT_EQ(guest.attempt([&] { cpu().load(kAt, 8); })->error, 9u);
  }
}

TEST_F(WalkTest, TableThatPointsToItself) {
  guest.poke(TestGuest::kTables + 8 * 300, TestGuest::kTables | 7);
  const u64 at = 0xffff000000000000 | u64{300} << 39 | u64{300} << 30 | u64{300} << 21 | u64{300} << 12;
  EXPECT_EQ(cpu().walk(at, Access::kWrite, false).gpa, TestGuest::kTables);
  EXPECT_EQ(guest.peek(TestGuest::kTables + 8 * 300) & (kA | kD), kA | kD);
}

TEST_F(WalkTest, GarbageTablesNeverLeaveRam) {
  std::mt19937_64 random{1};
  for (unsigned round = 0; round < 300; ++round) {
    TestGuest fresh;
    fresh.long_mode();
    const unsigned format = round % 3;
    for (u64 at = TestGuest::kTables; at < TestGuest::kTables + 8 * kPageSize; at += 8) {
      // Mostly entries that lead somewhere, else nothing is walked.
      const u64 entry = random() & 3 ? (random() & 0xffffff) | 7 : random();
      fresh.poke(at, entry);
    }
    if (format != 0) {
      fresh.s().efer = kEferNxe;
      fresh.s().cr4 = format == 1 ? kCr4Pae : kCr4Pse;
    }
    fresh.cpu().mode_changed();
    fresh.cpu().flush_tlb(true);
    for (unsigned i = 0; i < 50; ++i) {
      u64 at = random() >> (random() % 60);
      at = format == 0 ? static_cast<u64>(static_cast<i64>(at << 16) >> 16) : at & 0xffffffff;
      const unsigned size = 1u << random() % 4;
      const bool write = random() & 1;
      const auto fault = fresh.attempt([&] {
        if (write)
          fresh.cpu().store(at, size, i);
        else
          fresh.cpu().load(at, size);
      });
      EXPECT_TRUE(!fault || fault->vector == kPageFault || fault->vector == 0xff);
      fresh.cpu().instruction_done();
    }
  }
}

}  // namespace
}  // namespace bulkhead::engine::dbt
