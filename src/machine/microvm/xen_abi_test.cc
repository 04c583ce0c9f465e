// Xen's ABI on the machine microvm: frames, upcalls, the hypercall page, and waiting in a hypercall.
#include "machine/microvm/xen_abi.h"

#include <gtest/gtest.h>
#include <xen/event_channel.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>
#include <xen/memory.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/xen.h>

#include <thread>

#include "abi/xen/errors.h"
#include "abi/xen/pvh_interface.h"
#include "base/fake_timers.h"
#include "machine/microvm/layout.h"
#include "machine/microvm/vcpu_gang.h"
#include "tests/support/fake_engine.h"

namespace bulkhead::machine {
namespace {
using namespace abi::xen;
using Kind = Outcome::Kind;
constexpr u64 kArguments = 0x8000;  // of the hypercalls; linear is physical here

struct XenAbiTest : ::testing::Test {
  GuestMemory memory = *GuestMemory::create({{Gpa{0}, 1_MiB}, {Gpa{4_GiB}, 1_MiB}}, XenAbi::kPages);
  testing::FakePartition partition{2};
  FakeTimerService timers;
  Bus ports, mmio;
  VcpuGang gang{partition, 2, ports, mmio};
  std::vector<u32> gsis;
  XenAbi xen{model(),
             2,
             partition,
             memory,
             timers,
             {.wake = [this](unsigned vcpu) { gang.wake(vcpu); },
              .finish = [this](Outcome outcome) { gang.finish(std::move(outcome)); },
              .pulse_gsi = [this](u32 gsi) { gsis.push_back(gsi); }}};
  testing::FakeVcpu& bsp = partition.fake(0);

  XenAbiTest() {
    partition.fake(0).memory = partition.fake(1).memory = &memory;
    gang.set_abi(&xen);
  }
  static engine::CpuModel model() { return {.name = "test", .leaves = {}, .tsc_hz = 1'000'000'000}; }
  template <class T>
  i64 call(u64 number, u64 command, T& arg, unsigned vcpu = 0) {
    EXPECT_TRUE(memory.store(Gpa{kArguments}, arg));
    engine::HypercallExit exit{number, {command, kArguments}, true};
    if (number == __HYPERVISOR_vcpu_op) exit.args = {command, vcpu, kArguments};
    last = xen.hypercall(vcpu, exit);
    arg = *memory.load<T>(Gpa{kArguments});
    return static_cast<i64>(exit.result);
  }
  template <class T>
  i64 call_const(u64 number, u64 command, T arg, unsigned vcpu = 0) {
    return call(number, command, arg, vcpu);
  }
  u32 ipi(unsigned vcpu) {
    evtchn_bind_ipi_t arg{vcpu, 0};
    EXPECT_EQ(call(__HYPERVISOR_event_channel_op, EVTCHNOP_bind_ipi, arg), 0);
    return arg.port;
  }
  i64 send(u32 port) { return call_const(__HYPERVISOR_event_channel_op, EVTCHNOP_send, evtchn_send_t{port}); }
  i64 place(unsigned space, u64 index, u64 frame) {
    return call_const(__HYPERVISOR_memory_op, XENMEM_add_to_physmap,
                      xen_add_to_physmap_t{DOMID_SELF, 0, space, index, frame});
  }
  GuestAbi::Next last = GuestAbi::Next::kRun;
};

TEST_F(XenAbiTest, HypercallPageComesWhereTheMsrSays) {
  engine::MsrExit write{kHypercallPageMsr, true, 0x5000, true};
  EXPECT_TRUE(xen.msr(0, write));
  EXPECT_FALSE(write.fault);
  EXPECT_EQ(memory.load<u8>(Gpa{0x5000 + 32 * 29}), 0xb8);
  EXPECT_EQ(memory.load<u8>(Gpa{0x5000 + 32 * 29 + 1}), 29);
  engine::MsrExit other{0x123, true, 0x5000, true};
  EXPECT_FALSE(xen.msr(0, other));
  for (const u64 bad : {u64{0x5001}, u64{0x200000}, ~u64{0}, ~u64{0xfff}}) {
    engine::MsrExit exit{kHypercallPageMsr, true, bad, false};
    EXPECT_TRUE(xen.msr(0, exit));
    EXPECT_TRUE(exit.fault) << bad;
  }
}

TEST_F(XenAbiTest, UpcallGoesToTheLapicOfItsVcpu) {
  xen_hvm_evtchn_upcall_vector_t vector{1, 0xf3};
  EXPECT_EQ(call(__HYPERVISOR_hvm_op, HVMOP_set_evtchn_upcall_vector, vector), 0);
  EXPECT_EQ(send(ipi(1)), 0);
  ASSERT_EQ(partition.sent().size(), 1u);
  EXPECT_EQ(partition.sent()[0].address, 0xFEE01000u);
  EXPECT_EQ(partition.sent()[0].data, 0xf3u);
}

TEST_F(XenAbiTest, CallbackVectorGoesPastTheLapic) {
  EXPECT_EQ(call_const(__HYPERVISOR_hvm_op, HVMOP_set_param,
                       xen_hvm_param_t{DOMID_SELF, 0, HVM_PARAM_CALLBACK_IRQ, u64{2} << 56 | 0xf3}),
            0);
  EXPECT_EQ(send(ipi(0)), 0);
  ASSERT_FALSE(partition.direct().empty());
  EXPECT_EQ(partition.direct()[0], (std::pair<unsigned, u8>{0, 0xf3}));
}

TEST_F(XenAbiTest, CallbackGsiIsPulsed) {
  EXPECT_EQ(
      call_const(__HYPERVISOR_hvm_op, HVMOP_set_param, xen_hvm_param_t{DOMID_SELF, 0, HVM_PARAM_CALLBACK_IRQ, 11}), 0);
  EXPECT_EQ(send(ipi(0)), 0);
  EXPECT_FALSE(gsis.empty());
  EXPECT_EQ(gsis[0], 11u);
}

// An upcall that came while the LAPIC was off is asked for again at the next hypercall.
TEST_F(XenAbiTest, PendingUpcallIsRepeated) {
  send(ipi(0));
  xen_hvm_evtchn_upcall_vector_t vector{0, 0xf3};
  call(__HYPERVISOR_hvm_op, HVMOP_set_evtchn_upcall_vector, vector);
  const std::size_t before = partition.sent().size();
  u64 none = 0;
  call(__HYPERVISOR_xen_version, 0, none);
  EXPECT_GT(partition.sent().size(), before);
}

TEST_F(XenAbiTest, SharedInfoInRamAndGrantTableBeyond) {
  ASSERT_TRUE(memory.store(Gpa{0x9000}, u64{0x1122}));
  EXPECT_EQ(place(XENMAPSPACE_shared_info, 0, 9), 0);
  EXPECT_EQ(memory.load<u32>(Gpa{0x9000 + offsetof(shared_info_t, wc_version)}), 2u);
  EXPECT_EQ(place(XENMAPSPACE_grant_table, 0, 0x8000), 0);  // 128 MiB: no RAM there
  EXPECT_TRUE(memory.store(Gpa{0x8000000}, u32{1}));
  EXPECT_EQ(place(XENMAPSPACE_grant_table, 1, 0x200000), 0);  // beyond all RAM
  EXPECT_TRUE(memory.store(Gpa{u64{0x200000} << 12}, u32{1}));
  EXPECT_EQ(call_const(__HYPERVISOR_memory_op, XENMEM_remove_from_physmap, xen_remove_from_physmap_t{DOMID_SELF, 9}),
            0);
  EXPECT_EQ(memory.load<u64>(Gpa{0x9000}), 0x1122u);
  const u32 port = ipi(0);
  EXPECT_EQ(send(port), 0);  // our own view of it never went away
}

TEST_F(XenAbiTest, PlacesWhereNothingOfOursMayBe) {
  for (const u64 frame : {layout::kIoApic.value >> 12, layout::kLapic.value >> 12, layout::kVirtioWindows.value >> 12,
                          u64{0xfffff}, u64{1} << 40, u64{1} << 52, ~u64{0}})
    EXPECT_EQ(place(XENMAPSPACE_shared_info, 0, frame), -kXEINVAL) << frame;
  EXPECT_EQ(place(XENMAPSPACE_shared_info, 0, 9), 0);
  EXPECT_EQ(place(XENMAPSPACE_grant_table, 0, 9), -kXEBUSY);  // one page to a frame
  // A page of ours is not the guest's to share.
  EXPECT_EQ(call_const(__HYPERVISOR_vcpu_op, VCPUOP_register_vcpu_info, vcpu_register_vcpu_info_t{9, 0, 0}), -kXEINVAL);
}

TEST_F(XenAbiTest, BalloonedMemoryIsGivenBackAndComesBackEmpty) {
  ASSERT_TRUE(memory.store(Gpa{0x30000}, u64{5}) && memory.store(Gpa{0x100}, u64{0x30}));
  xen_memory_reservation_t arg{};
  arg.extent_start.p = reinterpret_cast<xen_pfn_t*>(0x100);
  arg.nr_extents = 1;
  arg.domid = DOMID_SELF;
  EXPECT_EQ(call(__HYPERVISOR_memory_op, XENMEM_decrease_reservation, arg), 1);
  EXPECT_EQ(memory.load<u64>(Gpa{0x30000}), 0u);
  EXPECT_EQ(call_const(__HYPERVISOR_memory_op, XENMEM_current_reservation, xen_memory_domain{DOMID_SELF}), 511);
  EXPECT_EQ(call_const(__HYPERVISOR_memory_op, XENMEM_maximum_reservation, xen_memory_domain{DOMID_SELF}), 512);
  EXPECT_EQ(call_const(__HYPERVISOR_vcpu_op, VCPUOP_register_vcpu_info, vcpu_register_vcpu_info_t{0x30, 0, 0}),
            -kXEINVAL);
  EXPECT_EQ(call(__HYPERVISOR_memory_op, XENMEM_decrease_reservation, arg), 0);  // it has left already
  ASSERT_TRUE(memory.store(Gpa{0x30000}, u64{7}));                               // which nothing forbids
  EXPECT_EQ(call(__HYPERVISOR_memory_op, XENMEM_populate_physmap, arg), 1);
  EXPECT_EQ(memory.load<u64>(Gpa{0x30000}), 0u);
  EXPECT_EQ(call(__HYPERVISOR_memory_op, XENMEM_populate_physmap, arg), 0);
  EXPECT_EQ(call_const(__HYPERVISOR_memory_op, XENMEM_maximum_gpfn, xen_memory_domain{DOMID_SELF}), 0x1000ff);
}

TEST_F(XenAbiTest, VcpusStartedBehindOurBackAreUp) {
  EXPECT_FALSE(xen.domain().online(1));
  u64 none = 0;
  call(__HYPERVISOR_xen_version, 0, none, 1);
  EXPECT_TRUE(xen.domain().online(1));
}

TEST_F(XenAbiTest, RingPagesAreInTheReservedArea) {
  *reinterpret_cast<u32*>(xen.store_page()) = 1;
  EXPECT_EQ(memory.load<u32>(layout::kXenStorePage), 1u);
  *reinterpret_cast<u32*>(xen.console_page()) = 2;
  EXPECT_EQ(memory.load<u32>(layout::kXenConsolePage), 2u);
  EXPECT_EQ(xen.domain().hvm_param(HVM_PARAM_STORE_PFN), 0u);
}

TEST_F(XenAbiTest, ThirtyTwoBitCallersAreToldNo) {
  engine::HypercallExit exit{__HYPERVISOR_xen_version, {0, 0}, false};
  EXPECT_EQ(xen.hypercall(0, exit), GuestAbi::Next::kRun);
  EXPECT_EQ(static_cast<i64>(exit.result), -kXENOSYS);
}

// ---- through the vCPU threads

TEST_F(XenAbiTest, ShutdownEndsTheMachine) {
  for (const auto& [reason, kind] : {std::pair{SHUTDOWN_poweroff, Kind::kPowerOff},
                                     {SHUTDOWN_reboot, Kind::kReset},
                                     {SHUTDOWN_crash, Kind::kCrashed}}) {
    VcpuGang fresh{partition, 1, ports, mmio};
    XenAbi abi{model(),
               1,
               partition,
               memory,
               timers,
               {.wake = [&](unsigned vcpu) { fresh.wake(vcpu); },
                .finish = [&](Outcome outcome) { fresh.finish(std::move(outcome)); },
                .pulse_gsi = {}}};
    fresh.set_abi(&abi);
    ASSERT_TRUE(memory.store(Gpa{kArguments}, u32{static_cast<u32>(reason)}));
    bsp.then(engine::HypercallExit{__HYPERVISOR_sched_op, {SCHEDOP_shutdown, kArguments}, true});
    EXPECT_EQ(fresh.run().kind, kind);
  }
}

TEST_F(XenAbiTest, PollIsEndedByItsEventOrSoon) {
  const u32 port = ipi(0);
  sched_poll_t poll{};
  poll.ports.p = reinterpret_cast<evtchn_port_t*>(0x100);
  poll.nr_ports = 1;
  ASSERT_TRUE(memory.store(Gpa{0x100}, port) && memory.store(Gpa{kArguments}, poll));
  u64 seen = 99;
  for (int i = 0; i < 3; ++i) bsp.then(engine::HypercallExit{__HYPERVISOR_sched_op, {SCHEDOP_poll, kArguments}, true});
  bsp.then_look([&](const engine::Exit& last_exit) { seen = std::get<engine::HypercallExit>(last_exit).result; });
  bsp.then_look([&](const engine::Exit&) { gang.finish({Kind::kStopped, 0, {}}); });
  std::thread sender{[&] {
    for (int i = 0; i < 100; ++i) xen.domain().raise_virq(0, VIRQ_DEBUG);
  }};
  EXPECT_EQ(gang.run().kind, Kind::kStopped);
  sender.join();
  EXPECT_EQ(seen, 0u);
}

TEST_F(XenAbiTest, StoppedWhileAVcpuIsDown) {
  engine::HypercallExit down{__HYPERVISOR_vcpu_op, {VCPUOP_down, 0, 0}, true};
  bsp.then(down);
  std::thread stopper{[&] {
    while (xen.domain().online(0)) std::this_thread::yield();
    gang.finish({Kind::kStopped, 0, {}});
  }};
  EXPECT_EQ(gang.run().kind, Kind::kStopped);
  stopper.join();
}

}  // namespace
}  // namespace bulkhead::machine
