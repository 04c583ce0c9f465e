// Time, timers, runstate, and vCPUs that come, wait and go.
#include <gtest/gtest.h>

#include <algorithm>

#include "abi/xen/guest_clock.h"
#include "abi/xen/testing/fake_guest.h"

namespace bulkhead::abi::xen {
namespace {

constexpr Nanoseconds kMs = 1'000'000;

struct VcpuTest : ::testing::Test {
  testing::FakeGuest g;
  u32 timer_port = 0;
  VcpuTest() {
    evtchn_bind_virq_t arg{VIRQ_TIMER, 0, 0};
    EXPECT_EQ(g.event_op(EVTCHNOP_bind_virq, arg), 0);
    timer_port = arg.port;
  }
  bool take_timer() {
    auto& word = g.shared().evtchn_pending[0];
    const bool pending = word >> timer_port & 1;
    word &= ~(u64{1} << timer_port);
    g.info(0).evtchn_pending_sel = 0;
    g.info(0).evtchn_upcall_pending = 0;
    return pending;
  }
  i64 singleshot(u64 at, u32 flags = 0) {
    return g.vcpu_op(VCPUOP_set_singleshot_timer, 0, vcpu_set_singleshot_timer_t{at, flags});
  }
  Answer sched(u64 command, u64 at = 0, unsigned vcpu = 0) {
    return g.call(__HYPERVISOR_sched_op, {command, at}, vcpu);
  }
  Answer poll(std::vector<u32> ports, u64 timeout, unsigned vcpu = 0) {
    std::ranges::copy(ports, &g.at<u32>(2));
    sched_poll_t arg{};
    arg.ports.p = reinterpret_cast<evtchn_port_t*>(g.address(2));
    arg.nr_ports = static_cast<unsigned>(ports.size());
    arg.timeout = timeout;
    g.at<sched_poll_t>(1) = arg;
    return sched(SCHEDOP_poll, g.address(1), vcpu);
  }
};

// ---- the clock

TEST(GuestClock, ScalesEveryRate) {
  for (const u64 hz : {u64{1}, u64{1000}, u64{999'999'999}, u64{1'000'000'000}, u64{1'000'000'001}, u64{2'596'119'000},
                       u64{5'000'000'000}, u64{20'000'000'000}}) {
    FakeClock host;
    DomainConfig config;
    config.tsc_hz = hz;
    const GuestClock clock{config, host};
    const vcpu_time_info_t info = clock.time_info();
    const u64 cycles = hz * 100;
    EXPECT_NEAR(static_cast<double>(clock.scale(cycles)), 100e9, hz < 1000 ? 1e9 : 100) << hz;
    EXPECT_EQ(info.version % 2, 0u);
    EXPECT_EQ(info.tsc_to_system_mul != 0, true);
  }
}

TEST_F(VcpuTest, TimeIsPublishedToEveryVcpu) {
  for (unsigned vcpu = 0; vcpu < 2; ++vcpu) {
    const vcpu_time_info_t& time = g.info(vcpu).time;
    EXPECT_EQ(time.version % 2, 0u);
    EXPECT_EQ(time.tsc_to_system_mul, 0x80000000u);  // 1 GHz
    EXPECT_EQ(time.tsc_shift, 1);
    EXPECT_EQ(time.flags, 1);
  }
  const u32 before = g.info(0).time.version;
  g.domain->update_time(0);
  EXPECT_EQ(g.info(0).time.version, before + 2);
}

TEST_F(VcpuTest, WallclockIsTheHostsAtSystemTimeZero) {
  g.timers.clock().advance(5 * kMs);
  g.timers.clock().set_unix_base(1'700'000'000'123'456'789);
  g.domain->update_wallclock();
  EXPECT_EQ(g.shared().wc_sec, 1'700'000'000u);
  EXPECT_EQ(g.shared().wc_nsec, 123'456'789u);
  EXPECT_EQ(g.shared().wc_version % 2, 0u);
}

// ---- timers

TEST_F(VcpuTest, SingleshotFiresOnce) {
  EXPECT_EQ(singleshot(3 * kMs), 0);
  g.timers.advance(2 * kMs);
  EXPECT_FALSE(take_timer());
  g.timers.advance(2 * kMs);
  EXPECT_TRUE(take_timer());
  g.timers.advance(100 * kMs);
  EXPECT_FALSE(take_timer());
}

TEST_F(VcpuTest, SingleshotIsReplacedAndStopped) {
  singleshot(3 * kMs);
  singleshot(9 * kMs);
  g.timers.advance(5 * kMs);
  EXPECT_FALSE(take_timer());
  g.timers.advance(5 * kMs);
  EXPECT_TRUE(take_timer());
  singleshot(20 * kMs);
  EXPECT_EQ(g.vcpu_op(VCPUOP_stop_singleshot_timer, 0, u64{0}), 0);
  g.timers.advance(50 * kMs);
  EXPECT_FALSE(take_timer());
}

TEST_F(VcpuTest, PastDeadlines) {
  g.timers.advance(10 * kMs);
  EXPECT_EQ(singleshot(5 * kMs, VCPU_SSHOTTMR_future), -kXETIME);
  EXPECT_FALSE(take_timer());
  EXPECT_EQ(singleshot(5 * kMs), 0);
  EXPECT_TRUE(take_timer());
  EXPECT_EQ(singleshot(~u64{0}), 0);  // never, as good as
  EXPECT_FALSE(take_timer());
  EXPECT_EQ(g.call(__HYPERVISOR_set_timer_op, {1}).value, 0);
  EXPECT_TRUE(take_timer());
  EXPECT_EQ(g.call(__HYPERVISOR_set_timer_op, {0}).value, 0);
}

TEST_F(VcpuTest, PeriodicTicksWithoutMakingUpForLostOnes) {
  EXPECT_EQ(g.vcpu_op(VCPUOP_set_periodic_timer, 0, vcpu_set_periodic_timer_t{kMs - 1}), -kXEINVAL);
  EXPECT_EQ(g.vcpu_op(VCPUOP_set_periodic_timer, 0, vcpu_set_periodic_timer_t{~u64{0}}), -kXEINVAL);
  EXPECT_EQ(g.vcpu_op(VCPUOP_set_periodic_timer, 0, vcpu_set_periodic_timer_t{10 * kMs}), 0);
  const u64 before = g.counter("timers_fired");
  g.timers.advance(100 * kMs);
  EXPECT_EQ(g.counter("timers_fired") - before, 10u);
  g.timers.stall(1000 * kMs);
  EXPECT_EQ(g.counter("timers_fired") - before, 11u);
  EXPECT_EQ(g.vcpu_op(VCPUOP_stop_periodic_timer, 0, u64{0}), 0);
  g.timers.advance(100 * kMs);
  EXPECT_EQ(g.counter("timers_fired") - before, 11u);
}

// ---- waiting

TEST_F(VcpuTest, BlockWaitsForAnUpcall) {
  g.domain->set_upcall_masked(0, true);
  EXPECT_EQ(sched(SCHEDOP_block).after, After::kBlock);
  EXPECT_FALSE(g.domain->upcall_masked(0));  // blocking turns them on
  EXPECT_FALSE(g.domain->may_run(0));
  g.domain->raise_virq(0, VIRQ_TIMER);
  EXPECT_TRUE(g.domain->may_run(0));
  EXPECT_EQ(sched(SCHEDOP_block).after, After::kRun);  // one is pending already
}

TEST_F(VcpuTest, PollWaitsForItsPort) {
  const u32 mine = g.ipi(0), other = g.ipi(0);
  g.shared().evtchn_mask[0] = ~u64{0};  // as PV spinlocks have them
  EXPECT_EQ(poll({mine}, 0).after, After::kBlock);
  g.send(other);
  EXPECT_FALSE(g.domain->may_run(0));
  g.send(mine);
  EXPECT_TRUE(g.take_notice(0));
  EXPECT_TRUE(g.domain->may_run(0));
  EXPECT_EQ(poll({mine}, 0).after, After::kRun);  // still pending
  EXPECT_EQ(poll({mine, other}, 0).after, After::kRun);
}

TEST_F(VcpuTest, PollTimesOut) {
  const u32 port = g.ipi(0);
  EXPECT_EQ(poll({port}, 5 * kMs).after, After::kBlock);
  g.timers.advance(4 * kMs);
  EXPECT_FALSE(g.domain->may_run(0));
  g.notified.clear();
  g.timers.advance(4 * kMs);
  EXPECT_TRUE(g.take_notice(0));
  EXPECT_TRUE(g.domain->may_run(0));
  EXPECT_EQ(poll({port}, 6 * kMs).after, After::kRun);  // in the past
  EXPECT_EQ(poll({}, 20 * kMs).after, After::kBlock);   // a plain sleep
}

TEST_F(VcpuTest, GivenUpWaitIsOver) {
  const u32 port = g.ipi(0);
  poll({port}, 0);
  g.domain->end_wait(0);
  EXPECT_TRUE(g.domain->may_run(0));
}

TEST_F(VcpuTest, VcpusGoUpAndDown) {
  EXPECT_EQ(g.vcpu_op(VCPUOP_is_up, 1, 0), 0);
  EXPECT_FALSE(g.domain->may_run(1));
  EXPECT_EQ(g.vcpu_op(VCPUOP_initialise, 1, 0), 0);
  EXPECT_EQ(g.vcpu_op(VCPUOP_up, 1, 0), 0);
  EXPECT_TRUE(g.take_notice(1));
  EXPECT_TRUE(g.domain->may_run(1));
  EXPECT_EQ(g.vcpu_op(VCPUOP_is_up, 1, 0), 1);
  EXPECT_EQ(g.vcpu_op(VCPUOP_initialise, 1, 0), -kXEEXIST);
  EXPECT_EQ(g.call(__HYPERVISOR_vcpu_op, {VCPUOP_down, 1, 0}, 1).after, After::kDown);
  EXPECT_FALSE(g.domain->may_run(1));
  EXPECT_EQ(g.vcpu_op(VCPUOP_send_nmi, 1, 0), 0);
  EXPECT_EQ(g.nmis, std::vector<unsigned>{1});
}

TEST_F(VcpuTest, SuspendIsCancelled) {
  g.at<sched_shutdown_t>(1) = {SHUTDOWN_suspend};
  for (int round = 0; round < 2; ++round) {
    const Answer answer = sched(SCHEDOP_shutdown, g.address(1));
    EXPECT_EQ(answer.value, 1);
    EXPECT_EQ(answer.after, After::kRun);
  }
  EXPECT_TRUE(g.shutdowns.empty());
}

TEST_F(VcpuTest, ShutdownEndsTheZone) {
  g.at<sched_shutdown_t>(1) = {SHUTDOWN_reboot};
  EXPECT_EQ(sched(SCHEDOP_shutdown, g.address(1)).after, After::kEnd);
  EXPECT_EQ(g.shutdowns, std::vector{ShutdownReason::kReboot});
  g.at<sched_shutdown_t>(1) = {77};
  EXPECT_EQ(sched(SCHEDOP_shutdown, g.address(1)).value, -kXEINVAL);
  EXPECT_EQ(sched(SCHEDOP_remote_shutdown, g.address(1)).value, -kXEPERM);
  EXPECT_EQ(sched(SCHEDOP_pin_override, g.address(1)).value, -kXEPERM);
}

TEST_F(VcpuTest, WatchdogBitesUnlessFed) {
  const auto dog = [&](u32 id, u32 seconds) {
    g.at<sched_watchdog_t>(1) = {id, seconds};
    return sched(SCHEDOP_watchdog, g.address(1)).value;
  };
  EXPECT_EQ(dog(0, 0), -kXEINVAL);
  EXPECT_EQ(dog(1, 5), -kXEINVAL);  // there is none yet
  EXPECT_EQ(dog(0, 5), 1);
  EXPECT_EQ(dog(0, 5), 2);
  EXPECT_EQ(dog(0, 5), -kXENOSPC);
  EXPECT_EQ(dog(2, 0), 0);
  EXPECT_EQ(dog(3, 5), -kXEINVAL);
  g.timers.advance(4000 * kMs);
  EXPECT_EQ(dog(1, 5), 0);
  g.timers.advance(4000 * kMs);
  EXPECT_TRUE(g.shutdowns.empty());
  g.timers.advance(4000 * kMs);
  EXPECT_EQ(g.shutdowns, std::vector{ShutdownReason::kWatchdog});
}

// ---- runstate

TEST_F(VcpuTest, RunstateAddsUpToSystemTime) {
  g.timers.clock().advance(10 * kMs);
  g.domain->set_runstate(0, Runstate::kBlocked);
  g.timers.clock().advance(30 * kMs);
  g.domain->set_runstate(0, Runstate::kRunning);
  g.timers.clock().advance(5 * kMs);
  EXPECT_EQ(g.vcpu_op(VCPUOP_get_runstate_info, 0, vcpu_runstate_info_t{}), 0);
  const auto& info = g.at<vcpu_runstate_info_t>(60);
  EXPECT_EQ(info.state, RUNSTATE_running);
  EXPECT_EQ(info.state_entry_time, 40 * kMs);
  EXPECT_EQ(info.time[RUNSTATE_running], 15 * kMs);
  EXPECT_EQ(info.time[RUNSTATE_blocked], 30 * kMs);
}

TEST_F(VcpuTest, StolenTimeIsTakenFromRunning) {
  g.vcpu_op(VCPUOP_get_runstate_info, 0, vcpu_runstate_info_t{});
  g.timers.clock().advance(100 * kMs);
  g.steal = 40 * kMs;
  g.vcpu_op(VCPUOP_get_runstate_info, 0, vcpu_runstate_info_t{});
  const auto& info = g.at<vcpu_runstate_info_t>(60);
  EXPECT_EQ(info.time[RUNSTATE_running], 60 * kMs);
  EXPECT_EQ(info.time[RUNSTATE_runnable], 40 * kMs);
}

TEST_F(VcpuTest, RegisteredRunstateAreaIsKeptFresh) {
  EXPECT_EQ(g.call(__HYPERVISOR_vm_assist, {VMASST_CMD_enable, VMASST_TYPE_runstate_update_flag}).value, 0);
  EXPECT_EQ(g.vcpu_op(VCPUOP_register_runstate_memory_area, 0, g.address(7, 64)), 0);
  const auto& area = g.at<vcpu_runstate_info_t>(7, 64);
  EXPECT_EQ(area.state, RUNSTATE_running);
  g.timers.clock().advance(3 * kMs);
  g.domain->set_runstate(0, Runstate::kBlocked);
  g.timers.clock().advance(4 * kMs);
  g.domain->set_runstate(0, Runstate::kRunning);
  g.domain->refresh(g.kernels[0]);
  EXPECT_EQ(area.time[RUNSTATE_blocked], 4 * kMs);
  EXPECT_EQ(area.state_entry_time, 7 * kMs);  // and not flagged as being written
}

TEST_F(VcpuTest, RegisteredTimeAreaIsWritten) {
  EXPECT_EQ(g.vcpu_op(VCPUOP_register_vcpu_time_memory_area, 0, g.address(8)), 0);
  EXPECT_EQ(g.at<vcpu_time_info_t>(8).tsc_to_system_mul, 0x80000000u);
  EXPECT_EQ(g.at<vcpu_time_info_t>(8).version % 2, 0u);
}

// ---- bad guests

TEST_F(VcpuTest, BadVcpusAndForeignTimers) {
  for (const u64 vcpu : {u64{2}, u64{32}, u64{1} << 32, ~u64{0}})
    for (u64 command = 0; command < 16; ++command)
      EXPECT_EQ(g.call(__HYPERVISOR_vcpu_op, {command, vcpu, g.address(1)}).value, -kXENOENT);
  for (const u64 command : {VCPUOP_set_periodic_timer, VCPUOP_set_singleshot_timer, VCPUOP_stop_singleshot_timer})
    EXPECT_EQ(g.call(__HYPERVISOR_vcpu_op, {command, 1, g.address(1)}).value, -kXEINVAL);
}

TEST_F(VcpuTest, BadVcpuInfo) {
  const auto attempt = [&](u64 frame, u32 offset, unsigned vcpu) {
    return g.vcpu_op(VCPUOP_register_vcpu_info, vcpu, vcpu_register_vcpu_info_t{frame, offset, 0});
  };
  EXPECT_EQ(attempt(g.frame(3), kPageSize - 63, 0), -kXEINVAL);
  EXPECT_EQ(attempt(g.frame(3), ~u32{0} - 7, 0), -kXEINVAL);
  EXPECT_EQ(attempt(g.frame(3), 4, 0), -kXEINVAL);
  EXPECT_EQ(attempt(3, 0, 0), -kXEINVAL);
  EXPECT_EQ(attempt(~u64{0}, 0, 0), -kXEINVAL);
  g.domain->set_online(1, true);
  EXPECT_EQ(attempt(g.frame(3), 0, 1), -kXEINVAL);  // runs, and is not the caller
  EXPECT_EQ(attempt(g.frame(3), 0, 0), 0);
  EXPECT_EQ(attempt(g.frame(4), 0, 0), -kXEINVAL);  // once
}

TEST_F(VcpuTest, BadAreasAreForgivenAndStayBad) {
  EXPECT_EQ(g.vcpu_op(VCPUOP_register_runstate_memory_area, 0, u64{0x10}), 0);
  for (int i = 0; i < 10; ++i) {
    g.domain->set_runstate(0, Runstate::kRunning);
    EXPECT_GT(g.call(__HYPERVISOR_xen_version, {0}).value, 0);
  }
  EXPECT_GT(g.counter("bad_pointers"), 5u);
}

TEST_F(VcpuTest, BadPolls) {
  EXPECT_EQ(poll({0}, 0).value, -kXEINVAL);
  EXPECT_EQ(poll({5000}, 0).value, -kXEINVAL);
  sched_poll_t arg{};
  arg.ports.p = reinterpret_cast<evtchn_port_t*>(g.address(2));
  for (const u32 count : {129u, ~0u}) {
    arg.nr_ports = count;
    g.at<sched_poll_t>(1) = arg;
    EXPECT_EQ(sched(SCHEDOP_poll, g.address(1)).value, -kXEINVAL);
  }
  arg.nr_ports = 3;
  arg.ports.p = reinterpret_cast<evtchn_port_t*>(u64{1});
  g.at<sched_poll_t>(1) = arg;
  EXPECT_EQ(sched(SCHEDOP_poll, g.address(1)).value, -kXEFAULT);
  for (u64 command = 0; command < 12; ++command) sched(command, ~u64{0});
}

TEST_F(VcpuTest, TimerStormsAreOneTimer) {
  const std::size_t before = g.timers.armed();
  for (u64 i = 0; i < 10000; ++i) singleshot(g.domain->system_time() + kMs + i % 7);
  EXPECT_LE(g.timers.armed(), before + 1);
}

}  // namespace
}  // namespace bulkhead::abi::xen
