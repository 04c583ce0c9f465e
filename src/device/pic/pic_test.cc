#include "device/pic/pic.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "bus/bus.h"
#include "device/testing/hostile.h"

namespace bulkhead::device {
namespace {

constexpr u16 kMaster = Pic::kMasterPort, kSlave = Pic::kSlavePort, kElcr = Pic::kElcrPort;

struct PicTest : ::testing::Test {
  PicTest() {
    EXPECT_TRUE(ports.attach(kMaster, 2, pic.master()));
    EXPECT_TRUE(ports.attach(kSlave, 2, pic.slave()));
    EXPECT_TRUE(ports.attach(kElcr, 2, pic.elcr()));
  }
  void out(u16 port, unsigned value) { ports.write(port, value, AccessSize::k1); }
  unsigned in(u16 port) { return static_cast<unsigned>(ports.read(port, AccessSize::k1).value); }
  void initialise(unsigned icw4 = 0x01) {
    out(kMaster, 0x11);
    out(kMaster + 1, 0x30);
    out(kMaster + 1, 0x04);
    out(kMaster + 1, icw4);
    out(kSlave, 0x11);
    out(kSlave + 1, 0x38);
    out(kSlave + 1, 0x02);
    out(kSlave + 1, icw4 & ~0x10u);
  }
  unsigned isr(u16 port) {
    out(port, 0x0b);
    return in(port);
  }
  unsigned irr(u16 port) {
    out(port, 0x0a);
    return in(port);
  }

  bool int_high = false;
  Pic pic{[this](bool high) {
    EXPECT_NE(high, int_high) << "only changes are told";
    int_high = high;
  }};
  Bus ports;
};

TEST_F(PicTest, IsSilentUntilInitialised) {
  for (unsigned irq = 0; irq < 16; ++irq) pic.line(irq).set(true);
  EXPECT_FALSE(int_high);
  EXPECT_EQ(pic.acknowledge(), std::nullopt);
  EXPECT_EQ(in(kMaster + 1), 0xffu);
}

TEST_F(PicTest, DeliversAnEdge) {
  initialise();
  pic.line(4).set(true);
  EXPECT_TRUE(int_high);
  EXPECT_EQ(pic.acknowledge(), 0x34);
  EXPECT_FALSE(int_high);
  EXPECT_EQ(isr(kMaster), 0x10u);
  out(kMaster, 0x20);
  EXPECT_EQ(isr(kMaster), 0u);
  EXPECT_FALSE(int_high) << "the line is still high, but that is no new edge";
  pic.line(4).set(false);
  pic.line(4).set(true);
  EXPECT_TRUE(int_high);
}

TEST_F(PicTest, DeliversThroughTheSlave) {
  initialise();
  pic.line(8).pulse();
  EXPECT_TRUE(int_high);
  EXPECT_EQ(pic.acknowledge(), 0x38);
  EXPECT_EQ(isr(kMaster), 0x04u);
  EXPECT_EQ(isr(kSlave), 0x01u);
  pic.line(12).pulse();
  EXPECT_FALSE(int_high) << "lower priority within the slave";
  out(kSlave, 0x20);
  out(kMaster, 0x20);
  EXPECT_EQ(pic.acknowledge(), 0x3c);
}

TEST_F(PicTest, HigherPriorityInterruptsLower) {
  initialise();
  pic.line(5).pulse();
  EXPECT_EQ(pic.acknowledge(), 0x35);
  pic.line(6).pulse();
  EXPECT_FALSE(int_high);
  pic.line(1).pulse();
  EXPECT_EQ(pic.acknowledge(), 0x31);
  EXPECT_EQ(isr(kMaster), 0x22u);
  out(kMaster, 0x20);  // the highest first
  EXPECT_EQ(isr(kMaster), 0x20u);
  out(kMaster, 0x65);  // specific
  EXPECT_EQ(pic.acknowledge(), 0x36);
}

TEST_F(PicTest, AMaskedRequestWaits) {
  initialise();
  out(kMaster + 1, 0x10);
  pic.line(4).pulse();
  EXPECT_FALSE(int_high);
  EXPECT_EQ(irr(kMaster), 0x10u);
  out(kMaster + 1, 0x00);
  EXPECT_TRUE(int_high);
}

TEST_F(PicTest, LevelLinesAskAgainUntilTheyFall) {
  initialise();
  out(kElcr, 0x20);
  pic.line(5).set(true);
  EXPECT_EQ(pic.acknowledge(), 0x35);
  out(kMaster, 0x20);
  EXPECT_TRUE(int_high);
  pic.line(5).set(false);
  EXPECT_FALSE(int_high);
  EXPECT_EQ(pic.acknowledge(), std::nullopt) << "it withdrew";
}

TEST_F(PicTest, ElcrKeepsOnlyLinesThatMayBeLevel) {
  out(kElcr, 0xff);
  out(kElcr + 1, 0xff);
  EXPECT_EQ(in(kElcr), 0xf8u);
  EXPECT_EQ(in(kElcr + 1), 0xdeu);
  EXPECT_EQ(ports.read(kElcr, AccessSize::k2).value, 0xdef8u);
}

TEST_F(PicTest, AutoEoiLeavesNothingInService) {
  initialise(0x03);
  pic.line(3).pulse();
  EXPECT_EQ(pic.acknowledge(), 0x33);
  EXPECT_EQ(isr(kMaster), 0u);
  pic.line(3).pulse();
  EXPECT_EQ(pic.acknowledge(), 0x33);
}

TEST_F(PicTest, RotationMovesThePriorities) {
  initialise();
  pic.line(3).pulse();
  EXPECT_EQ(pic.acknowledge(), 0x33);
  out(kMaster, 0xa0);  // rotate on non-specific EOI: 3 is now the lowest
  pic.line(3).pulse();
  pic.line(4).pulse();
  EXPECT_EQ(pic.acknowledge(), 0x34);
  out(kMaster, 0xe4);  // rotate on specific EOI
  EXPECT_EQ(pic.acknowledge(), 0x33);
  out(kMaster, 0x20);
  out(kMaster, 0xc0);  // set priority: 0 is the lowest
  pic.line(0).pulse();
  pic.line(7).pulse();
  EXPECT_EQ(pic.acknowledge(), 0x37);
}

TEST_F(PicTest, RotateOnAutoEoi) {
  initialise(0x03);
  out(kMaster, 0x80);
  pic.line(1).pulse();
  EXPECT_EQ(pic.acknowledge(), 0x31);
  pic.line(1).pulse();
  pic.line(3).pulse();
  EXPECT_EQ(pic.acknowledge(), 0x33);
  out(kMaster, 0x00);
  EXPECT_EQ(pic.acknowledge(), 0x31);
}

TEST_F(PicTest, SpecialMaskLetsLowerOnesThrough) {
  initialise();
  pic.line(3).pulse();
  EXPECT_EQ(pic.acknowledge(), 0x33);
  out(kMaster + 1, 0x08);
  pic.line(6).pulse();
  EXPECT_FALSE(int_high);
  out(kMaster, 0x68);
  EXPECT_TRUE(int_high);
  EXPECT_EQ(pic.acknowledge(), 0x36);
  out(kMaster, 0x20);
  EXPECT_EQ(isr(kMaster), 0x08u) << "what is masked is not ended by a non-specific EOI";
  out(kMaster, 0x48);
  EXPECT_FALSE(int_high);
}

TEST_F(PicTest, SpecialFullyNestedLetsTheSlaveNest) {
  initialise(0x11);
  pic.line(12).pulse();
  EXPECT_EQ(pic.acknowledge(), 0x3c);
  pic.line(9).pulse();
  EXPECT_TRUE(int_high);
  EXPECT_EQ(pic.acknowledge(), 0x39);
  pic.line(3).pulse();
  EXPECT_FALSE(int_high);
}

TEST_F(PicTest, PollIsAnAcknowledge) {
  initialise();
  out(kMaster, 0x0c);
  EXPECT_EQ(in(kMaster), 0u);
  pic.line(6).pulse();
  out(kMaster, 0x0c);
  EXPECT_EQ(in(kMaster), 0x86u);
  EXPECT_FALSE(int_high);
  EXPECT_EQ(isr(kMaster), 0x40u);
}

TEST_F(PicTest, NothingPendingIsSpurious) {
  initialise();
  EXPECT_EQ(pic.acknowledge(), std::nullopt);
  EXPECT_EQ(pic.acknowledge_always(), 0x37);
  EXPECT_EQ(isr(kMaster), 0u) << "a spurious interrupt is not in service";
}

TEST_F(PicTest, ReinitialisingForgetsEdges) {
  initialise();
  pic.line(4).set(true);
  initialise();
  EXPECT_FALSE(int_high);
  EXPECT_EQ(irr(kMaster), 0u);
}

TEST_F(PicTest, ResetMasksAll) {
  initialise();
  pic.line(4).set(true);
  pic.reset();
  EXPECT_FALSE(int_high);
  EXPECT_EQ(in(kMaster + 1), 0xffu);
  EXPECT_EQ(in(kElcr), 0u);
}

TEST_F(PicTest, TheCascadeCannotBeDrivenFromOutside) {
  initialise();
  pic.line(2).set(true);
  EXPECT_FALSE(int_high);
}

TEST_F(PicTest, AHalfDoneInitialisationDoesNoHarm) {
  out(kMaster, 0x11);
  out(kMaster, 0x11);
  pic.line(0).pulse();
  EXPECT_TRUE(pic.acknowledge().has_value());
  out(kMaster, 0x12);  // single, no ICW4
  out(kMaster + 1, 0x47);
  out(kMaster + 1, 0xfe);  // the mask already
  EXPECT_EQ(in(kMaster + 1), 0xfeu);
  pic.line(0).pulse();
  EXPECT_EQ(pic.acknowledge(), 0x40);
}

TEST_F(PicTest, AMasterThatThinksItIsAloneGivesItsOwnVector) {
  initialise();
  out(kMaster, 0x13);
  out(kMaster + 1, 0x40);
  out(kMaster + 1, 0x01);
  pic.line(9).pulse();
  EXPECT_EQ(pic.acknowledge(), 0x42);
}

TEST_F(PicTest, EoiWithNothingInServiceIsIgnored) {
  initialise();
  for (unsigned command = 0; command < 0x100; command += 0x20) out(kMaster, command | 3);
  pic.line(7).pulse();
  EXPECT_EQ(pic.acknowledge(), 0x37);
}

TEST_F(PicTest, AnswersEveryWidthEverywhere) {
  testing::sweep(pic.master(), 2);
  testing::sweep(pic.slave(), 2);
  testing::sweep(pic.elcr(), 2);
}

TEST_F(PicTest, SurvivesBabble) {
  for (IoDevice* device : {&pic.master(), &pic.slave(), &pic.elcr()})
    testing::babble(*device, 2, 11, 50'000, [&](u64 random) {
      pic.line(random % 16).set(random & 0x100);
      const bool was_high = int_high;
      if (random % 3 == 0) {
        EXPECT_EQ(pic.acknowledge().has_value(), was_high);
      }
      EXPECT_EQ(pic.int_pin(), int_high);
    });
}

TEST(Pic, LinesMayBeDrivenFromManyThreads) {
  bool high = false;
  Pic pic{[&](bool now) { high = now; }};  // its calls are ordered by the model's lock
  std::vector<std::jthread> threads;
  for (unsigned t = 0; t < 3; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 3000; ++i) pic.line(3 + t).pulse();
    });
  for (int i = 0; i < 3000; ++i) {
    pic.master().write(0, 0x11, AccessSize::k1);
    pic.acknowledge();
  }
  threads.clear();
  EXPECT_EQ(pic.int_pin(), high);
}

}  // namespace
}  // namespace bulkhead::device
