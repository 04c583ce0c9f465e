#include "engine/dbt/cpu/lapic.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>

namespace bulkhead::engine::dbt {
namespace {

using namespace lapic_reg;

// Time that moves when told to: 2 ticks per nanosecond.
class TestBus final : public LapicBus {
 public:
  TestBus() : LapicBus{{.tsc_hz = 2'000'000'000}} {}
  explicit TestBus(const Features& features_in) : LapicBus{features_in} {}
  u64 tsc = 1'000'000;
  void advance_ns(u64 ns) {
    tsc += 2 * ns;
    run_timers();
  }
  int callouts = 0, ipis = 0;

 private:
  u64 host_tsc() const override { return tsc; }
  void before_callout(unsigned) override { ++callouts; }
  void before_ipi(unsigned) override { ++ipis; }
};

class LapicTest : public testing::Test {
 protected:
  LapicTest() {
    for (unsigned i = 0; i < 3; ++i) {
      states.push_back(std::make_unique<CpuState>());
      lapics.push_back(std::make_unique<Lapic>(bus, i, *states[i]));
    }
    for (auto& lapic : lapics) lapic->mmio_write(kSpurious, 0x1ff);
  }
  Lapic& at(unsigned i) { return *lapics[i]; }
  u32 take_pending(unsigned i) { return states[i]->pending.exchange(0); }
  void to_x2apic(unsigned i) { ASSERT_TRUE(at(i).write_msr(0x1b, at(i).apic_base() | 1u << 10)); }
  u64 msr(unsigned i, u32 index) {
    u64 value = 0xdead;
    EXPECT_TRUE(at(i).read_msr(index, value)) << std::hex << index;
    return value;
  }
  TestBus bus;
  std::vector<std::unique_ptr<CpuState>> states;
  std::vector<std::unique_ptr<Lapic>> lapics;
};

constexpr u64 kMsiBase = 0xfee00000;
Msi msi(u32 destination, u32 data, bool logical = false) {
  return {kMsiBase | destination << 12 | (logical ? 4u : 0u), data};
}

TEST_F(LapicTest, FixedInterruptIsTakenAndEnds) {
  bus.deliver_msi(msi(1, 0x41));
  EXPECT_FALSE(at(0).has_interrupt());
  ASSERT_TRUE(at(1).has_interrupt());
  EXPECT_TRUE(take_pending(1) & kPendingInterrupt);
  EXPECT_EQ(at(1).acknowledge(), 0x41);
  EXPECT_FALSE(at(1).has_interrupt());
  EXPECT_EQ(at(1).mmio_read(kIsr + 0x20), 2u);
  at(1).mmio_write(kEoi, 0);
  EXPECT_EQ(at(1).mmio_read(kIsr + 0x20), 0u);
}

TEST_F(LapicTest, HigherClassInterruptsLowerAndNotTheOtherWay) {
  bus.deliver_msi(msi(0, 0x51));
  EXPECT_EQ(at(0).acknowledge(), 0x51);
  bus.deliver_msi(msi(0, 0x52));  // same class waits
  bus.deliver_msi(msi(0, 0x31));
  EXPECT_FALSE(at(0).has_interrupt());
  bus.deliver_msi(msi(0, 0x61));
  EXPECT_EQ(at(0).acknowledge(), 0x61);
  at(0).mmio_write(kEoi, 0);
  EXPECT_FALSE(at(0).has_interrupt());
  at(0).mmio_write(kEoi, 0);
  EXPECT_EQ(at(0).acknowledge(), 0x52);
}

TEST_F(LapicTest, TaskPriorityHoldsBack) {
  at(0).set_cr8(5);
  bus.deliver_msi(msi(0, 0x5f));
  EXPECT_FALSE(at(0).has_interrupt());
  EXPECT_EQ(at(0).acknowledge(), std::nullopt);
  at(0).set_cr8(4);
  EXPECT_TRUE(at(0).has_interrupt());
  EXPECT_TRUE(take_pending(0) & kPendingInterrupt);
  EXPECT_EQ(at(0).mmio_read(kTaskPriority), 0x40u);
  EXPECT_EQ(at(0).mmio_read(kProcessorPriority), 0x40u);
}

TEST_F(LapicTest, EoiOfALevelVectorIsBroadcastOnce) {
  std::vector<u8> ended;
  bus.eoi_handler = [&](u8 vector) { ended.push_back(vector); };
  bus.deliver_msi(msi(0, 0x71 | 1u << 15 | 1u << 14));
  bus.deliver_msi(msi(0, 0x41));
  EXPECT_EQ(at(0).acknowledge(), 0x71);
  at(0).mmio_write(kEoi, 0);
  EXPECT_EQ(at(0).acknowledge(), 0x41);
  at(0).mmio_write(kEoi, 0);
  at(0).mmio_write(kEoi, 0);  // nothing in service
  EXPECT_EQ(ended, std::vector<u8>{0x71});
  EXPECT_EQ(bus.callouts, 1);
}

TEST_F(LapicTest, EoiBroadcastCanBeSuppressed) {
  int ended = 0;
  bus.eoi_handler = [&](u8) { ++ended; };
  at(0).mmio_write(kSpurious, 0x11ff);
  bus.deliver_msi(msi(0, 0x71 | 1u << 15));
  at(0).acknowledge();
  at(0).mmio_write(kEoi, 0);
  EXPECT_EQ(ended, 0);
}

TEST_F(LapicTest, EoiHandlerMayRaiseTheSameInterruptAgain) {
  bus.eoi_handler = [&](u8) { bus.deliver_msi(msi(0, 0x71)); };
  bus.deliver_msi(msi(0, 0x71 | 1u << 15));
  at(0).acknowledge();
  at(0).mmio_write(kEoi, 0);
  EXPECT_EQ(at(0).acknowledge(), 0x71);
}

TEST_F(LapicTest, LogicalFlatAndCluster) {
  at(0).mmio_write(kLogicalDestination, 0x01000000);
  at(1).mmio_write(kLogicalDestination, 0x02000000);
  bus.deliver_msi(msi(0x02, 0x41, true));
  EXPECT_FALSE(at(0).has_interrupt());
  EXPECT_EQ(at(1).acknowledge(), 0x41);
  at(2).mmio_write(kDestinationFormat, 0x0fffffff);
  at(2).mmio_write(kLogicalDestination, 0x34000000);
  bus.deliver_msi(msi(0x34, 0x42, true));
  EXPECT_EQ(at(2).acknowledge(), 0x42);
}

TEST_F(LapicTest, BroadcastReachesEverybody) {
  bus.deliver_msi(msi(0xff, 0x44));
  for (unsigned i = 0; i < 3; ++i) EXPECT_TRUE(at(i).has_interrupt());
}

TEST_F(LapicTest, LowestPriorityGoesToOneThatIsLeastBusy) {
  at(0).set_cr8(3);
  at(2).set_cr8(3);
  for (int i = 0; i < 6; ++i) {
    bus.deliver_msi(msi(0xff, 0x91 | 1u << 8));
    EXPECT_EQ(at(1).acknowledge(), 0x91);
    at(1).mmio_write(kEoi, 0);
  }
  EXPECT_FALSE(at(0).has_interrupt());
}

TEST_F(LapicTest, IpiShorthands) {
  at(0).mmio_write(kCommand, 0xc4000 | 0x55);  // all but self
  EXPECT_FALSE(at(0).has_interrupt());
  EXPECT_EQ(at(1).acknowledge(), 0x55);
  EXPECT_EQ(at(2).acknowledge(), 0x55);
  at(0).mmio_write(kCommand, 0x44000 | 0x56);  // self
  EXPECT_EQ(at(0).acknowledge(), 0x56);
  at(1).mmio_write(kCommand, 0x84000 | 0x66);  // all
  EXPECT_EQ(at(0).acknowledge(), 0x66);
  EXPECT_EQ(at(1).acknowledge(), 0x66);
  EXPECT_EQ(bus.ipis, 3);
}

TEST_F(LapicTest, IpiByPhysicalDestination) {
  at(0).mmio_write(kCommandHigh, 2u << 24);
  at(0).mmio_write(kCommand, 0x4000 | 0x77);
  EXPECT_EQ(at(2).acknowledge(), 0x77);
  EXPECT_EQ(at(0).mmio_read(kCommand), 0x4077u);
}

TEST_F(LapicTest, InitSipiAndNmi) {
  at(0).mmio_write(kCommandHigh, 1u << 24);
  at(0).mmio_write(kCommand, 0xc500);  // INIT, level, assert
  EXPECT_EQ(take_pending(1), u32{kPendingInit});
  at(0).mmio_write(kCommand, 0x8500);  // de-assert: nothing
  EXPECT_EQ(take_pending(1), 0u);
  at(0).mmio_write(kCommand, 0x4600 | 0x9a);
  EXPECT_EQ(take_pending(1), u32{kPendingSipi});
  EXPECT_EQ(at(1).sipi_vector(), 0x9a);
  at(0).mmio_write(kCommand, 0x4400);
  EXPECT_EQ(take_pending(1), u32{kPendingNmi});
}

TEST_F(LapicTest, InitVoidsAnEarlierSipi) {
  at(0).mmio_write(kCommandHigh, 1u << 24);
  at(0).mmio_write(kCommand, 0x4600 | 0x9a);
  at(0).mmio_write(kCommand, 0xc500);
  EXPECT_EQ(take_pending(1), u32{kPendingInit});
}

TEST_F(LapicTest, OnlyTheBspStartsByItself) {
  EXPECT_FALSE(at(0).waiting_for_sipi());
  EXPECT_TRUE(at(1).waiting_for_sipi());
  at(1).set_waiting_for_sipi(false);
  at(1).reset(true);
  EXPECT_TRUE(at(1).waiting_for_sipi());
}

TEST_F(LapicTest, IllegalVectorsAreErrorsNotInterrupts) {
  at(0).mmio_write(kLvtError, 0x3f);
  at(0).mmio_write(kCommand, 0x44000 | 0x0f);
  bus.deliver_msi(msi(0, 3));
  EXPECT_EQ(at(0).mmio_read(kErrorStatus), 0u);  // shown after a write
  at(0).mmio_write(kErrorStatus, 0);
  EXPECT_EQ(at(0).mmio_read(kErrorStatus), 0x60u);
  EXPECT_EQ(at(0).acknowledge(), 0x3f);
  at(0).mmio_write(kErrorStatus, 0);
  EXPECT_EQ(at(0).mmio_read(kErrorStatus), 0u);
}

TEST_F(LapicTest, IllegalErrorVectorDoesNotRecurse) {
  at(0).mmio_write(kLvtError, 0x05);
  bus.deliver_msi(msi(0, 3));
  EXPECT_FALSE(at(0).has_interrupt());
}

TEST_F(LapicTest, EveryOffsetTakesEveryWriteAndRead) {
  for (u32 offset = 0; offset < 0x1000; ++offset)
    for (const u32 value : {0u, ~0u, 0x00010000u}) {
      if (offset == kCommand) continue;
      at(0).mmio_write(offset, value);
      at(0).mmio_read(offset);
    }
  EXPECT_EQ(at(0).mmio_read(kVersion), 0x01050014u);
  EXPECT_EQ(at(1).mmio_read(kId), 1u << 24);
}

TEST_F(LapicTest, UnknownRegisterIsAnIllegalAddressError) {
  at(0).mmio_write(0x40, 1);
  at(0).mmio_write(kErrorStatus, 0);
  EXPECT_EQ(at(0).mmio_read(kErrorStatus), 0x80u);
}

TEST_F(LapicTest, SoftwareDisabledRefusesFixedAndMasksTheLvt) {
  at(0).mmio_write(kLvt1, 0x400);
  at(0).mmio_write(kSpurious, 0xff);
  bus.deliver_msi(msi(0, 0x41));
  EXPECT_FALSE(at(0).has_interrupt());
  EXPECT_TRUE(at(0).mmio_read(kLvt1) & kLvtMasked);
  at(0).mmio_write(kLvt1, 0x400);
  EXPECT_TRUE(at(0).mmio_read(kLvt1) & kLvtMasked);
  at(1).mmio_write(kCommand, 0x4400);  // NMI to 0 still arrives
  EXPECT_TRUE(take_pending(0) & kPendingNmi);
}

class FakePic final : public ExtIntSource {
 public:
  std::optional<u8> vector = 0x08;
  LapicBus* bus = nullptr;
  std::optional<u8> acknowledge() override {
    bus->set_extint(false);
    return vector;
  }
};

TEST_F(LapicTest, ExtIntThroughTheVirtualWire) {
  FakePic pic;
  pic.bus = &bus;
  bus.extint_source = &pic;
  bus.set_extint(true);
  ASSERT_TRUE(at(0).has_interrupt());
  EXPECT_FALSE(at(1).has_interrupt());
  EXPECT_EQ(at(0).acknowledge(), 0x08);
  EXPECT_FALSE(at(0).has_interrupt());
  EXPECT_EQ(at(0).mmio_read(kIsr), 0u);
}

TEST_F(LapicTest, ExtIntMaskedAtLint0WaitsForUnmask) {
  FakePic pic;
  pic.bus = &bus;
  bus.extint_source = &pic;
  at(0).mmio_write(kLvt0, kLvtMasked | 0x700);
  bus.set_extint(true);
  EXPECT_FALSE(at(0).has_interrupt());
  at(0).mmio_write(kLvt0, 0x700);
  EXPECT_TRUE(at(0).has_interrupt());
}

TEST_F(LapicTest, ExtIntThatWentAwayIsNothing) {
  FakePic pic;
  pic.bus = &bus;
  pic.vector = std::nullopt;
  bus.extint_source = &pic;
  bus.set_extint(true);
  EXPECT_EQ(at(0).acknowledge(), std::nullopt);
  EXPECT_FALSE(at(0).has_interrupt());
}

TEST_F(LapicTest, DisabledLapicLetsThePicThroughAndNothingElse) {
  ASSERT_TRUE(at(0).write_msr(0x1b, at(0).apic_base() & ~u64{1u << 11}));
  EXPECT_FALSE(at(0).claims(0xfee00000));
  bus.deliver_msi(msi(0, 0x41));
  EXPECT_FALSE(at(0).has_interrupt());
  bus.set_extint(true);
  EXPECT_TRUE(at(0).has_interrupt());
}

TEST_F(LapicTest, Lint0AsFixedOrNmi) {
  at(0).mmio_write(kLvt0, 0x35);
  bus.set_extint(true);
  EXPECT_EQ(at(0).acknowledge(), 0x35);
  bus.set_extint(false);
  at(0).mmio_write(kLvt0, 0x400);
  take_pending(0);
  bus.set_extint(true);
  EXPECT_TRUE(take_pending(0) & kPendingNmi);
}

TEST_F(LapicTest, BaseTransitions) {
  const u64 base = at(0).apic_base();
  EXPECT_EQ(base, 0xfee00900u);
  EXPECT_FALSE(at(0).write_msr(0x1b, 0xfee00500));           // EXTD without EN
  EXPECT_FALSE(at(0).write_msr(0x1b, base | 1));             // reserved
  EXPECT_FALSE(at(0).write_msr(0x1b, base | u64{1} << 40));  // beyond the physical width
  EXPECT_TRUE(at(0).write_msr(0x1b, base | 0x400));          // xAPIC -> x2APIC
  EXPECT_FALSE(at(0).claims(0xfee00000));
  EXPECT_FALSE(at(0).write_msr(0x1b, base));          // not back
  EXPECT_TRUE(at(0).write_msr(0x1b, 0xfee00100));     // off
  EXPECT_FALSE(at(0).write_msr(0x1b, base | 0x400));  // off -> x2APIC
  EXPECT_TRUE(at(0).write_msr(0x1b, base));
  EXPECT_TRUE(at(0).claims(0xfee00fff));
}

TEST_F(LapicTest, BaseCanMove) {
  ASSERT_TRUE(at(0).write_msr(0x1b, 0xfed00900));
  EXPECT_TRUE(at(0).claims(0xfed00020));
  EXPECT_FALSE(at(0).claims(0xfee00020));
}

TEST_F(LapicTest, NoX2apicInTheModelMeansNoX2apic) {
  TestBus plain{{.tsc_hz = 2'000'000'000, .x2apic = false, .tsc_deadline = false}};
  CpuState state;
  Lapic lapic{plain, 0, state};
  u64 value;
  EXPECT_FALSE(lapic.write_msr(0x1b, 0xfee00d00));
  EXPECT_FALSE(lapic.read_msr(0x6e0, value));
  EXPECT_FALSE(lapic.write_msr(0x6e0, 1));
}

TEST_F(LapicTest, X2apicRegisters) {
  to_x2apic(1);
  EXPECT_EQ(msr(1, 0x802), 1u);
  EXPECT_EQ(msr(1, 0x80d), 2u);
  EXPECT_EQ(msr(1, 0x803), 0x01050014u);
  EXPECT_TRUE(at(1).write_msr(0x808, 0x20));
  EXPECT_EQ(msr(1, 0x808), 0x20u);
  EXPECT_TRUE(at(1).write_msr(0x83f, 0x45));
  EXPECT_EQ(at(1).acknowledge(), 0x45);
  EXPECT_TRUE(at(1).write_msr(0x80b, 0));
  EXPECT_EQ(msr(1, 0x812), 0u);
}

TEST_F(LapicTest, X2apicRefusesWhatIsReserved) {
  u64 value;
  EXPECT_FALSE(at(0).read_msr(0x802, value));  // xAPIC mode: no MSRs
  EXPECT_FALSE(at(0).write_msr(0x80b, 0));
  to_x2apic(0);
  EXPECT_FALSE(at(0).write_msr(0x80b, 1));  // EOI takes zero only
  EXPECT_FALSE(at(0).write_msr(0x828, 1));  // ESR too
  EXPECT_FALSE(at(0).write_msr(0x802, 0));  // ID
  EXPECT_FALSE(at(0).write_msr(0x80d, 0));  // LDR
  EXPECT_FALSE(at(0).write_msr(0x80e, 0));  // DFR is not there
  EXPECT_FALSE(at(0).write_msr(0x831, 0));  // nor the ICR's high half
  EXPECT_FALSE(at(0).write_msr(0x808, 0x100));
  EXPECT_FALSE(at(0).write_msr(0x832, u64{1} << 32));
  EXPECT_FALSE(at(0).read_msr(0x80b, value));
  EXPECT_FALSE(at(0).read_msr(0x83f, value));
  for (u32 index = 0x840; index < 0x900; ++index) EXPECT_FALSE(at(0).read_msr(index, value));
}

TEST_F(LapicTest, X2apicIpis) {
  for (unsigned i = 0; i < 3; ++i) to_x2apic(i);
  EXPECT_TRUE(at(0).write_msr(0x830, u64{2} << 32 | 0x61));
  EXPECT_EQ(at(2).acknowledge(), 0x61);
  EXPECT_TRUE(at(0).write_msr(0x830, u64{0b110} << 32 | 0x800 | 0x71));  // logical: 1 and 2
  EXPECT_FALSE(at(0).has_interrupt());
  EXPECT_EQ(at(1).acknowledge(), 0x71);
  EXPECT_EQ(at(2).acknowledge(), 0x71);
  EXPECT_TRUE(at(0).write_msr(0x830, u64{0xffffffff} << 32 | 0x82));
  for (unsigned i = 0; i < 3; ++i) EXPECT_EQ(at(i).acknowledge(), 0x82);
  EXPECT_TRUE(at(0).write_msr(0x830, u64{0xff} << 32 | 0x93));  // 255 is nobody here
  for (unsigned i = 0; i < 3; ++i) EXPECT_FALSE(at(i).has_interrupt());
  EXPECT_EQ(msr(0, 0x830), (u64{0xff} << 32 | 0x93));
}

TEST_F(LapicTest, ReservedMsiModesAreIgnored) {
  bus.deliver_msi(msi(0, 0x41 | 3u << 8));
  bus.deliver_msi(msi(0, 0x41 | 2u << 8));
  EXPECT_EQ(take_pending(0), 0u);
  bus.deliver_msi(msi(200, 0x41));
  for (unsigned i = 0; i < 3; ++i) EXPECT_FALSE(at(i).has_interrupt());
}

TEST_F(LapicTest, SaveAndLoadRoundTrip) {
  to_x2apic(1);
  EXPECT_TRUE(at(1).write_msr(0x832, 0x400ec));
  EXPECT_TRUE(at(1).write_msr(0x6e0, 5'000'000));
  bus.deliver_msi(msi(1, 0x51));
  EXPECT_EQ(at(1).acknowledge(), 0x51);
  bus.deliver_msi(msi(1, 0x62));
  std::array<u8, 1024> page;
  at(1).save(page);
  const u64 base = at(1).apic_base(), deadline = at(1).tsc_deadline();
  at(1).reset(false);
  EXPECT_FALSE(at(1).has_interrupt());
  at(1).load(page, base, deadline);
  std::array<u8, 1024> again;
  at(1).save(again);
  EXPECT_EQ(page, again);
  EXPECT_EQ(at(1).acknowledge(), 0x62);
  EXPECT_EQ(msr(1, 0x6e0), 5'000'000u);
}

TEST_F(LapicTest, SleepEndsWithASignalFromAnotherThread) {
  std::thread other{[&] { bus.deliver_msi(msi(1, 0x41)); }};
  while (states[1]->pending.load() == 0) at(1).sleep();
  other.join();
  EXPECT_EQ(at(1).acknowledge(), 0x41);
}

}  // namespace
}  // namespace bulkhead::engine::dbt
