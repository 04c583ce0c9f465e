#include "machine/microvm/vcpu_gang.h"

#include <gtest/gtest.h>

#include "tests/support/fake_engine.h"

namespace bulkhead::machine {
namespace {
using Kind = Outcome::Kind;

// Answers reads with offset + 0x10 * size and remembers writes.
class EchoDevice final : public IoDevice {
 public:
  IoReply read(u64 offset, AccessSize size) override { return IoReply::data(offset + 0x10 * bytes_of(size)); }
  IoReply write(u64 offset, u64 value, AccessSize size) override {
    writes.push_back({offset, value, bytes_of(size)});
    if (on_write) on_write();
    return IoReply::done();
  }
  struct Write {
    u64 offset, value;
    unsigned size;
    bool operator==(const Write&) const = default;
  };
  std::vector<Write> writes;
  std::function<void()> on_write;
};

struct VcpuGangTest : ::testing::Test {
  void SetUp() override {
    ASSERT_TRUE(ports.attach(0x100, 8, port_device));
    ASSERT_TRUE(mmio.attach(0xd0000000, 0x1000, mmio_device));
  }
  testing::FakePartition partition{2};
  testing::FakeVcpu& bsp = partition.fake(0);
  testing::FakeVcpu& ap = partition.fake(1);
  EchoDevice port_device, mmio_device;
  Bus ports, mmio;
  VcpuGang gang{partition, 2, ports, mmio};

  Outcome run_and_stop_after_script() {
    bsp.then_look([this](const engine::Exit&) { gang.finish({Kind::kStopped, 0, {}}); });
    return gang.run();
  }
  u64 count(std::string_view kind) {
    for (const ExitStatistics& s : gang.meter().statistics())
      if (s.kind == kind) return s.count;
    return ~u64{0};
  }
};

TEST_F(VcpuGangTest, AccessesReachTheRightBusWithTheirWidth) {
  u64 in = 0, load = 0;
  bsp.out(0x102, 0xabcd, 2);
  bsp.in(0x104, 4, in);
  bsp.store(0xd0000010, 0x1122334455667788, 8);
  bsp.load(0xd0000020, 8, load);
  EXPECT_EQ(run_and_stop_after_script().kind, Kind::kStopped);
  EXPECT_EQ(port_device.writes, (std::vector<EchoDevice::Write>{{2, 0xabcd, 2}}));
  EXPECT_EQ(mmio_device.writes, (std::vector<EchoDevice::Write>{{0x10, 0x1122334455667788, 8}}));
  EXPECT_EQ(in, 0x44u);
  EXPECT_EQ(load, 0xa0u);
  EXPECT_EQ(count("port"), 2u);
  EXPECT_EQ(count("mmio"), 2u);
}

TEST_F(VcpuGangTest, NobodyThereReadsAllOnes) {
  u64 byte = 0, word = 0, dword = 0, straddling = 0, far = 0;
  bsp.in(0x80, 1, byte);
  bsp.in(0xffff, 2, word);
  bsp.in(0xcf8, 4, dword);
  bsp.in(0x106, 4, straddling);
  bsp.load(0xfffffffffffffff8, 8, far);
  run_and_stop_after_script();
  EXPECT_EQ(byte, 0xffu);
  EXPECT_EQ(word, 0xffffu);
  EXPECT_EQ(dword, 0xffffffffu);
  EXPECT_EQ(straddling, 0xffffffffu);
  EXPECT_EQ(far, ~u64{0});
}

TEST_F(VcpuGangTest, UnknownMsrFaultsAndIsCounted) {
  bool fault = false;
  bsp.then(engine::MsrExit{0x12345, false, 0, false});
  bsp.then_look([&](const engine::Exit& last) { fault = std::get<engine::MsrExit>(last).fault; });
  bsp.then(engine::MsrExit{0x12345, true, 7, false});
  run_and_stop_after_script();
  EXPECT_TRUE(fault);
  EXPECT_EQ(gang.counters()[VcpuGang::kUnknownMsrRead].value(), 1u);
  EXPECT_EQ(gang.counters()[VcpuGang::kUnknownMsrWrite].value(), 1u);
}

TEST_F(VcpuGangTest, UnknownHypercallSaysSo) {
  i64 seen = 0;
  bsp.then(engine::HypercallExit{1, {}, true, 0});
  bsp.then_look(
      [&](const engine::Exit& last) { seen = static_cast<i64>(std::get<engine::HypercallExit>(last).result); });
  run_and_stop_after_script();
  EXPECT_EQ(seen, 0);  // as the engine said before: -ENOSYS, unless told otherwise
  EXPECT_EQ(static_cast<i64>(engine::HypercallExit{}.result), -38);
  EXPECT_EQ(gang.counters()[VcpuGang::kUnknownHypercall].value(), 1u);
}

TEST_F(VcpuGangTest, TripleFaultNamesTheVcpuAndItsRegisters) {
  ap.then(engine::ShutdownExit{engine::ShutdownReason::kTripleFault});
  const Outcome outcome = gang.run();
  EXPECT_EQ(outcome.kind, Kind::kTripleFault);
  EXPECT_NE(outcome.reason.find("vCPU 1"), std::string::npos);
  EXPECT_NE(outcome.reason.find("fake registers"), std::string::npos);
}

TEST_F(VcpuGangTest, InitIsAReset) {
  bsp.then(engine::ShutdownExit{engine::ShutdownReason::kInit});
  EXPECT_EQ(gang.run().kind, Kind::kReset);
}

TEST_F(VcpuGangTest, EngineFailureCarriesItsReason) {
  bsp.then(engine::FailureExit{"code cache is gone"});
  const Outcome outcome = gang.run();
  EXPECT_EQ(outcome.kind, Kind::kEngineFailure);
  EXPECT_EQ(outcome.reason, "vCPU 0: code cache is gone");
}

TEST_F(VcpuGangTest, HaltedBeforeTheOthersWereStarted) {
  bsp.forever(engine::HaltExit{});
  const Outcome outcome = gang.run();  // the other one waits for its start-up message
  EXPECT_EQ(outcome.kind, Kind::kHalted);
  EXPECT_NE(outcome.reason.find("fake registers"), std::string::npos);
}

TEST_F(VcpuGangTest, AllHalted) {
  ap.state_now.mp_state = engine::MpState::kHalted;
  bsp.forever(engine::HaltExit{});
  ap.forever(engine::HaltExit{});
  EXPECT_EQ(gang.run().kind, Kind::kHalted);
}

TEST_F(VcpuGangTest, OneHaltedVcpuDoesNotEndTheMachine) {
  ap.state_now.mp_state = engine::MpState::kRunnable;
  bsp.then(engine::HaltExit{});
  bsp.then(engine::HaltExit{});
  bsp.out(0x100, 1);  // woken after all
  EXPECT_EQ(run_and_stop_after_script().kind, Kind::kStopped);
  EXPECT_EQ(port_device.writes.size(), 1u);
  EXPECT_EQ(count("halt"), 2u);
}

TEST_F(VcpuGangTest, FirstOutcomeWins) {
  port_device.on_write = [this] {
    gang.finish({Kind::kPowerOff, 0, {}});
    gang.finish({Kind::kReset, 0, {}});
  };
  bsp.out(0x100, 1);
  bsp.out(0x100, 2);
  EXPECT_EQ(gang.run().kind, Kind::kPowerOff);
}

TEST_F(VcpuGangTest, FinishFromAnotherThreadWakesWaitingVcpus) {
  std::thread other{[this] { gang.finish({Kind::kStopped, 0, {}}); }};
  EXPECT_EQ(gang.run().kind, Kind::kStopped);
  other.join();
}

TEST_F(VcpuGangTest, FinishedBeforeItRan) {
  gang.finish({Kind::kStopped, 0, {}});
  bsp.out(0x100, 1);
  EXPECT_EQ(gang.run().kind, Kind::kStopped);
  EXPECT_EQ(bsp.runs, 0u);
}

TEST_F(VcpuGangTest, EndlessKicksAreHarmless) {
  for (int i = 0; i < 1000; ++i) bsp.then(engine::KickedExit{});
  EXPECT_EQ(run_and_stop_after_script().kind, Kind::kStopped);
}

}  // namespace
}  // namespace bulkhead::machine
