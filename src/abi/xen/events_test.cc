// Event channels in the 2-level ABI, and both ends of those to domain 0.
#include <gtest/gtest.h>

#include <thread>

#include "abi/xen/testing/fake_guest.h"

namespace bulkhead::abi::xen {
namespace {

struct EventsTest : ::testing::Test {
  testing::FakeGuest g;
  bool pending(u32 port) { return g.shared().evtchn_pending[port / 64] >> port % 64 & 1; }
  u32 status(u32 port) {
    evtchn_status_t arg{.dom = DOMID_SELF, .port = port, .status = 99, .vcpu = 0, .u = {}};
    return g.event_op(EVTCHNOP_status, arg) == 0 ? arg.status : 99;
  }
};

TEST_F(EventsTest, IpiReachesItsVcpu) {
  const u32 port = g.ipi(1);
  ASSERT_EQ(port, 1u);  // port 0 is nobody's
  EXPECT_EQ(g.send(port), 0);
  EXPECT_TRUE(pending(port));
  EXPECT_TRUE(g.domain->upcall_pending(1));
  EXPECT_FALSE(g.domain->upcall_pending(0));
  EXPECT_EQ(g.info(1).evtchn_pending_sel, 1u);
  EXPECT_TRUE(g.take_notice(1));
}

TEST_F(EventsTest, OneUpcallForManyEvents) {
  const u32 a = g.ipi(0), b = g.ipi(0);
  g.send(a);
  EXPECT_TRUE(g.take_notice(0));
  for (int i = 0; i < 1000; ++i) g.send(i % 2 ? a : b);
  EXPECT_FALSE(g.take_notice(0));
  g.info(0).evtchn_upcall_pending = 0;
  g.info(0).evtchn_pending_sel = 0;
  g.shared().evtchn_pending[0] = 0;
  g.send(b);
  EXPECT_TRUE(g.take_notice(0));
}

TEST_F(EventsTest, MaskedEventWaitsForUnmask) {
  const u32 port = g.ipi(0);
  g.shared().evtchn_mask[0] = u64{1} << port;
  g.send(port);
  EXPECT_TRUE(pending(port));
  EXPECT_FALSE(g.domain->upcall_pending(0));
  EXPECT_EQ(g.event_op(EVTCHNOP_unmask, evtchn_unmask_t{port}), 0);
  EXPECT_TRUE(g.domain->upcall_pending(0));
  EXPECT_TRUE(g.take_notice(0));
}

TEST_F(EventsTest, MaskedUpcallIsPendingButNotDue) {
  g.domain->set_upcall_masked(0, true);
  g.send(g.ipi(0));
  EXPECT_FALSE(g.domain->upcall_pending(0));
  g.domain->set_upcall_masked(0, false);
  EXPECT_TRUE(g.domain->upcall_pending(0));
}

TEST_F(EventsTest, LoopbackConnectsAndFallsBackToUnbound) {
  const u32 there = g.unbound(DOMID_SELF);
  evtchn_bind_interdomain_t bind{DOMID_SELF, there, 0};
  ASSERT_EQ(g.event_op(EVTCHNOP_bind_interdomain, bind), 0);
  EXPECT_TRUE(pending(bind.local_port));  // the other may have sent before
  EXPECT_EQ(g.send(bind.local_port), 0);
  EXPECT_TRUE(pending(there));
  EXPECT_EQ(status(there), u32{EVTCHNSTAT_interdomain});
  EXPECT_EQ(g.close(bind.local_port), 0);
  EXPECT_EQ(status(there), u32{EVTCHNSTAT_unbound});
  EXPECT_EQ(status(bind.local_port), u32{EVTCHNSTAT_closed});
  EXPECT_EQ(g.send(there), 0);  // into the void
}

TEST_F(EventsTest, VirqsAreBoundOnceAndPerVcpuWhereTheyAre) {
  evtchn_bind_virq_t timer0{VIRQ_TIMER, 0, 0}, timer1{VIRQ_TIMER, 1, 0}, global1{VIRQ_CONSOLE, 1, 0};
  EXPECT_EQ(g.event_op(EVTCHNOP_bind_virq, timer0), 0);
  EXPECT_EQ(g.event_op(EVTCHNOP_bind_virq, timer0), -kXEEXIST);
  EXPECT_EQ(g.event_op(EVTCHNOP_bind_virq, timer1), 0);
  EXPECT_EQ(g.event_op(EVTCHNOP_bind_virq, global1), -kXEINVAL);
  g.domain->raise_virq(1, VIRQ_TIMER);
  EXPECT_TRUE(pending(timer1.port));
  EXPECT_FALSE(pending(timer0.port));
  EXPECT_EQ(g.send(timer0.port), -kXEINVAL);
  EXPECT_EQ(g.event_op(EVTCHNOP_bind_vcpu, evtchn_bind_vcpu_t{timer0.port, 1}), -kXEINVAL);
  EXPECT_EQ(g.close(timer1.port), 0);
  EXPECT_EQ(g.event_op(EVTCHNOP_bind_virq, timer1), 0);
}

TEST_F(EventsTest, BindVcpuMovesTheUpcall) {
  const u32 port = g.unbound();
  auto binding = g.domain->events().bind(port, [] {});
  EXPECT_EQ(g.event_op(EVTCHNOP_bind_vcpu, evtchn_bind_vcpu_t{port, 1}), 0);
  binding->notify();
  EXPECT_TRUE(g.domain->upcall_pending(1));
  EXPECT_EQ(g.event_op(EVTCHNOP_bind_vcpu, evtchn_bind_vcpu_t{g.ipi(0), 1}), -kXEINVAL);
}

TEST_F(EventsTest, HostEndHearsAndSpeaks) {
  const u32 port = g.unbound();
  int heard = 0;
  auto binding = g.domain->events().bind(port, [&] { ++heard; });
  ASSERT_NE(binding, nullptr);
  EXPECT_EQ(g.domain->events().bind(port, [] {}), nullptr);  // taken
  EXPECT_EQ(g.send(port), 0);
  EXPECT_EQ(heard, 1);
  EXPECT_FALSE(pending(port));
  binding->notify();
  EXPECT_TRUE(pending(port));
  binding.reset();
  EXPECT_EQ(g.send(port), 0);
  EXPECT_EQ(heard, 1);
  EXPECT_NE(g.domain->events().bind(port, [] {}), nullptr);  // waits for the next backend
}

TEST_F(EventsTest, GuestClosesWhileTheHostIsBound) {
  const u32 port = g.unbound();
  auto binding = g.domain->events().bind(port, [] {});
  EXPECT_EQ(g.close(port), 0);
  const u32 again = g.ipi(0);
  EXPECT_EQ(again, port);  // somebody else's now
  binding->notify();
  EXPECT_FALSE(pending(again));
}

TEST_F(EventsTest, CallbackMayDestroyItsBinding) {
  const u32 port = g.unbound();
  std::unique_ptr<EventHost::Binding> binding;
  binding = g.domain->events().bind(port, [&] { binding.reset(); });
  EXPECT_EQ(g.send(port), 0);
  EXPECT_EQ(binding, nullptr);
  EXPECT_EQ(g.send(port), 0);
}

TEST_F(EventsTest, NobodyIsCalledAfterTheBindingIsGone) {
  const u32 port = g.unbound();
  std::atomic<bool> gone{false}, late{false}, stop{false};
  g.at<evtchn_send_t>(1) = {port};
  std::thread sender{[&] {
    while (!stop) g.domain->hypercall(g.kernels[0], __HYPERVISOR_event_channel_op, {EVTCHNOP_send, g.address(1)});
  }};
  for (int i = 0; i < 200; ++i) {
    gone = false;
    auto binding = g.domain->events().bind(port, [&] {
      if (gone) late = true;
    });
    binding.reset();
    gone = true;
  }
  stop = true;
  sender.join();
  EXPECT_FALSE(late);
}

TEST_F(EventsTest, OnlyPortsForDomainZeroAreForTheHost) {
  EXPECT_EQ(g.domain->events().bind(g.unbound(DOMID_SELF), [] {}), nullptr);
  EXPECT_EQ(g.domain->events().bind(g.unbound(7), [] {}), nullptr);
  EXPECT_EQ(g.domain->events().bind(g.ipi(0), [] {}), nullptr);
  for (const u32 port : {0u, 500u, ~0u}) EXPECT_EQ(g.domain->events().bind(port, [] {}), nullptr);
}

TEST_F(EventsTest, DomainBuilderGetsPorts) {
  const auto store = g.domain->events().alloc_unbound_for_guest(),
             console = g.domain->events().alloc_unbound_for_guest();
  ASSERT_TRUE(store && console);
  EXPECT_NE(*store, *console);
  EXPECT_NE(g.domain->events().bind(*console, [] {}), nullptr);
}

TEST_F(EventsTest, RegisteredVcpuInfoTakesOverAndLosesNothing) {
  const u32 port = g.ipi(1);
  g.send(port);
  EXPECT_EQ(g.vcpu_op(VCPUOP_register_vcpu_info, 1, vcpu_register_vcpu_info_t{g.frame(5), 128, 0}), 0);
  EXPECT_EQ(g.domain->vcpu_info(1), g.ram[5].bytes + 128);
  EXPECT_TRUE(g.domain->upcall_pending(1));
  EXPECT_EQ(g.info(1).evtchn_pending_sel, ~u64{0});
  g.info(1).evtchn_upcall_pending = 0;
  g.notified.clear();
  g.shared().evtchn_pending[0] = g.info(1).evtchn_pending_sel = 0;
  g.send(port);
  EXPECT_EQ(g.at<vcpu_info_t>(5, 128).evtchn_upcall_pending, 1);
  EXPECT_TRUE(g.take_notice(1));
}

TEST_F(EventsTest, ResetClosesEverything) {
  const u32 port = g.unbound();
  auto binding = g.domain->events().bind(port, [] {});
  g.ipi(0);
  EXPECT_EQ(g.event_op(EVTCHNOP_reset, evtchn_reset_t{DOMID_SELF}), 0);
  EXPECT_EQ(status(port), u32{EVTCHNSTAT_closed});
  binding->notify();
  EXPECT_FALSE(pending(port));
}

// ---- bad guests

TEST_F(EventsTest, PortsRunOut) {
  u32 count = 0;
  while (g.ipi(0) != 0) ASSERT_LE(++count, 2000u);
  EXPECT_EQ(count, 1023u);
  evtchn_bind_ipi_t arg{0, 0};
  EXPECT_EQ(g.event_op(EVTCHNOP_bind_ipi, arg), -kXENOSPC);
  EXPECT_FALSE(g.domain->events().alloc_unbound_for_guest());
  EXPECT_EQ(g.close(77), 0);
  EXPECT_EQ(g.ipi(0), 77u);
}

TEST_F(EventsTest, BadPortsAndVcpus) {
  for (const u32 port : {0u, 1u, 1023u, 1024u, 4096u, 131072u, ~0u}) {
    EXPECT_EQ(g.send(port), -kXEINVAL) << port;
    EXPECT_EQ(g.close(port), -kXEINVAL) << port;
    EXPECT_EQ(g.event_op(EVTCHNOP_unmask, evtchn_unmask_t{port}), -kXEINVAL) << port;
    EXPECT_EQ(g.event_op(EVTCHNOP_bind_vcpu, evtchn_bind_vcpu_t{port, 0}), -kXEINVAL) << port;
    evtchn_bind_interdomain_t bind{DOMID_SELF, port, 0};
    EXPECT_EQ(g.event_op(EVTCHNOP_bind_interdomain, bind), -kXEINVAL) << port;
  }
  EXPECT_GE(g.counter("bad_ports"), 7u);
  for (const u32 vcpu : {2u, 32u, ~0u}) {
    evtchn_bind_ipi_t ipi{vcpu, 0};
    EXPECT_EQ(g.event_op(EVTCHNOP_bind_ipi, ipi), -kXENOENT);
    evtchn_bind_virq_t virq{VIRQ_TIMER, vcpu, 0};
    EXPECT_EQ(g.event_op(EVTCHNOP_bind_virq, virq), -kXENOENT);
  }
  for (const u32 number : {24u, 1000u, ~0u}) {
    evtchn_bind_virq_t virq{number, 0, 0};
    EXPECT_EQ(g.event_op(EVTCHNOP_bind_virq, virq), -kXEINVAL);
  }
  EXPECT_EQ(g.event_op(EVTCHNOP_bind_pirq, evtchn_bind_pirq_t{}), -kXEPERM);
}

TEST_F(EventsTest, OtherDomainsAreNotForGuests) {
  evtchn_alloc_unbound_t alloc{5, 0, 0};
  EXPECT_EQ(g.event_op(EVTCHNOP_alloc_unbound, alloc), -kXEPERM);
  evtchn_bind_interdomain_t zero{0, 1, 0}, other{9, 1, 0};
  EXPECT_EQ(g.event_op(EVTCHNOP_bind_interdomain, zero), -kXEINVAL);
  EXPECT_EQ(g.event_op(EVTCHNOP_bind_interdomain, other), -kXESRCH);
  EXPECT_EQ(g.event_op(EVTCHNOP_reset, evtchn_reset_t{0}), -kXEPERM);
  evtchn_status_t arg{.dom = 0, .port = 1, .status = 0, .vcpu = 0, .u = {}};
  EXPECT_EQ(g.event_op(EVTCHNOP_status, arg), -kXEPERM);
}

// A result that cannot be written must not cost a port for ever.
TEST_F(EventsTest, UnwritableResultReturnsThePort) {
  struct ReadOnly final : Caller {
    testing::FakeGuest& g;
    explicit ReadOnly(testing::FakeGuest& guest) : g{guest} {}
    unsigned vcpu() const override { return 0; }
    bool read(u64 gva, std::span<std::byte> out) override { return g.kernels[0].read(gva, out); }
    bool write(u64, std::span<const std::byte>) override { return false; }
  } caller{g};
  g.at<evtchn_bind_ipi_t>(1) = {0, 0};
  for (int i = 0; i < 3000; ++i)
    ASSERT_EQ(g.domain->hypercall(caller, __HYPERVISOR_event_channel_op, {EVTCHNOP_bind_ipi, g.address(1)}).value,
              -kXEFAULT);
  EXPECT_EQ(g.ipi(0), 1u);
}

TEST_F(EventsTest, BadPointersInEveryOperation) {
  for (u64 command = 0; command < 20; ++command)
    for (const u64 at : {u64{0}, u64{1} << 46, u64{0x0000800000000000}, ~u64{0}, ~u64{7}, g.kBase - 1})
      EXPECT_LT(g.call(__HYPERVISOR_event_channel_op, {command, at}).value, 0) << command;
  EXPECT_GT(g.counter("bad_pointers"), 0u);
}

}  // namespace
}  // namespace bulkhead::abi::xen
