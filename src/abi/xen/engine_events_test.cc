// A Domain whose engine carries events and timers: it is told of everything that it needs, and of its end.
#include <gtest/gtest.h>

#include <tuple>

#include "abi/xen/testing/fake_guest.h"

namespace bulkhead::abi::xen {
namespace {

struct FakeEngineEvents final : engine::XenEvents {
  Result<void> start(std::byte* shared, u64 time) override {
    if (refuse) return fail("refused");
    shared_info = shared, system_time = time;
    return {};
  }
  void set_vcpu_info(unsigned vcpu, std::byte* info) override { infos[vcpu] = info; }
  void set_timer(unsigned vcpu, u32 port) override { timers[vcpu] = port; }
  void set_ipi(u32 port, std::optional<unsigned> vcpu) override { ipis[port] = vcpu; }
  void set_upcall(u8 vector) override { upcall = vector; }
  void set_lapic_upcall(unsigned vcpu, u8 vector) override { lapic_upcalls[vcpu] = vector; }
  bool set_time_area(unsigned vcpu, Gva at) override { return area("time", vcpu, at); }
  bool set_runstate_area(unsigned vcpu, Gva at) override { return area("runstate", vcpu, at); }
  void set_runstate_flag(bool on) override { flag = on; }
  void look(unsigned) override {}
  bool area(const char* what, unsigned vcpu, Gva at) {
    areas.emplace_back(what, vcpu, at.value);
    return keeps_areas;
  }

  bool refuse = false, keeps_areas = true, flag = false;
  std::byte* shared_info = nullptr;
  u64 system_time = 0;
  u8 upcall = 0;
  std::map<unsigned, std::byte*> infos;
  std::map<unsigned, u32> timers;
  std::map<u32, std::optional<unsigned>> ipis;
  std::map<unsigned, u8> lapic_upcalls;
  std::vector<std::tuple<std::string, unsigned, u64>> areas;
};

struct EngineEventsTest : ::testing::Test {
  FakeEngineEvents engine;
  testing::FakeGuest g;
  EngineEventsTest() {
    g.config.fifo_events = false;
    g.config.engine_events = &engine;
    g.start();
  }
  u32 virq(u32 virq, unsigned vcpu) {
    evtchn_bind_virq_t arg{virq, vcpu, 0};
    EXPECT_EQ(g.event_op(EVTCHNOP_bind_virq, arg), 0);
    return arg.port;
  }
};

TEST_F(EngineEventsTest, StartsWithTheSharedPageAndEveryVcpu) {
  g.timers.clock().advance(77);
  ASSERT_TRUE(g.domain->start_engine_events());
  EXPECT_EQ(engine.shared_info, g.ours[0].bytes);
  EXPECT_EQ(engine.system_time, g.domain->system_time());
  EXPECT_EQ(engine.infos.size(), testing::FakeGuest::kVcpus);
  for (const auto& [vcpu, info] : engine.infos) EXPECT_EQ(info, g.domain->vcpu_info(vcpu));
  engine.refuse = true;
  EXPECT_FALSE(g.domain->start_engine_events());
}

TEST_F(EngineEventsTest, ThereIsNoFifoAbi) {
  evtchn_init_control_t arg{};
  EXPECT_EQ(g.event_op(EVTCHNOP_init_control, arg), -kXENOSYS);
}

TEST_F(EngineEventsTest, TimersAndIpisAreTheEnginesUntilTheirPortsClose) {
  const u32 timer = virq(VIRQ_TIMER, 1), debug = virq(VIRQ_DEBUG, 1), ipi = g.ipi(1);
  EXPECT_EQ(engine.timers, (std::map<unsigned, u32>{{1, timer}}));
  EXPECT_EQ(engine.ipis, (std::map<u32, std::optional<unsigned>>{{ipi, 1}}));
  EXPECT_EQ(g.close(debug), 0);
  EXPECT_EQ(engine.timers[1], timer);
  EXPECT_EQ(g.close(timer), 0);
  EXPECT_EQ(g.close(ipi), 0);
  EXPECT_EQ(engine.timers[1], 0u);
  EXPECT_EQ(engine.ipis[ipi], std::nullopt);
}

TEST_F(EngineEventsTest, ResetTakesEverythingBack) {
  virq(VIRQ_TIMER, 0);
  const u32 ipi = g.ipi(1);
  EXPECT_EQ(g.event_op(EVTCHNOP_reset, evtchn_reset_t{DOMID_SELF}), 0);
  EXPECT_EQ(engine.timers[0], 0u);
  EXPECT_EQ(engine.ipis[ipi], std::nullopt);
}

// A send that the engine did not take is answered as ever.
TEST_F(EngineEventsTest, SendsThatComeOutAreAnswered) {
  const u32 ipi = g.ipi(1);
  EXPECT_EQ(g.send(ipi), 0);
  EXPECT_TRUE(g.domain->upcall_pending(1));
  EXPECT_TRUE(g.take_notice(1));
}

TEST_F(EngineEventsTest, VcpuInfoMovesWithTheGuests) {
  EXPECT_EQ(g.vcpu_op(VCPUOP_register_vcpu_info, 0, vcpu_register_vcpu_info_t{testing::FakeGuest::frame(5), 128, 0}),
            0);
  EXPECT_EQ(engine.infos[0], g.ram[5].bytes + 128);
}

TEST_F(EngineEventsTest, UpcallVectorsOfBothKinds) {
  const auto set = [&](u64 value) {
    xen_hvm_param_t arg{DOMID_SELF, 0, HVM_PARAM_CALLBACK_IRQ, value};
    EXPECT_EQ(g.op(__HYPERVISOR_hvm_op, HVMOP_set_param, arg), 0);
  };
  set(u64{HVM_PARAM_CALLBACK_TYPE_VECTOR} << 56 | 0xf3);
  EXPECT_EQ(engine.upcall, 0xf3);
  for (const u64 other : {u64{11}, u64{HVM_PARAM_CALLBACK_TYPE_VECTOR} << 56 | 0xf, u64{0}}) {
    set(u64{HVM_PARAM_CALLBACK_TYPE_VECTOR} << 56 | 0xf3);
    set(other);
    EXPECT_EQ(engine.upcall, 0) << other;
  }
  xen_hvm_evtchn_upcall_vector_t own{1, 0xf4};
  EXPECT_EQ(g.op(__HYPERVISOR_hvm_op, HVMOP_set_evtchn_upcall_vector, own), 0);
  EXPECT_EQ(engine.lapic_upcalls, (std::map<unsigned, u8>{{1, 0xf4}}));
}

TEST_F(EngineEventsTest, AreasAreTheEnginesForTheVcpuThatAsksAndOursOtherwise) {
  constexpr u64 kArea = testing::FakeGuest::kBase + 3 * kPageSize + 64;
  EXPECT_EQ(g.vcpu_op(VCPUOP_register_runstate_memory_area, 0, kArea), 0);
  EXPECT_EQ(g.vcpu_op(VCPUOP_register_vcpu_time_memory_area, 0, kArea), 0);
  EXPECT_EQ(engine.areas.size(), 2u);
  EXPECT_EQ(g.at<u64>(3, 64 + 8), 0u);                                      // not written by us
  EXPECT_EQ(g.vcpu_op(VCPUOP_register_runstate_memory_area, 1, kArea), 0);  // of another vCPU
  EXPECT_EQ(engine.areas.size(), 2u);
  engine.keeps_areas = false;
  g.timers.clock().advance(1000);
  EXPECT_EQ(g.vcpu_op(VCPUOP_register_runstate_memory_area, 0, kArea), 0);
  EXPECT_EQ(engine.areas.size(), 3u);
  EXPECT_NE(g.at<u64>(3, 64 + 16), 0u);  // time spent running
}

TEST_F(EngineEventsTest, RunstateFlagFollowsTheAssist) {
  EXPECT_EQ(g.call(__HYPERVISOR_vm_assist, {VMASST_CMD_enable, VMASST_TYPE_runstate_update_flag}).value, 0);
  EXPECT_TRUE(engine.flag);
  EXPECT_EQ(g.call(__HYPERVISOR_vm_assist, {VMASST_CMD_disable, VMASST_TYPE_runstate_update_flag}).value, 0);
  EXPECT_FALSE(engine.flag);
}

}  // namespace
}  // namespace bulkhead::abi::xen
