// The small hypercalls, multicalls, what is counted, and guests that call anything with anything.
#include "abi/xen/domain.h"

#include <gtest/gtest.h>

#include <random>

#include "abi/xen/names.h"
#include "abi/xen/testing/fake_guest.h"

namespace bulkhead::abi::xen {
namespace {

struct DomainTest : ::testing::Test {
  testing::FakeGuest g;
  i64 version(u64 command, u64 page = 1) { return g.call(__HYPERVISOR_xen_version, {command, g.address(page)}).value; }
  std::string text(u64 page) { return &g.at<char>(page); }
  i64 param(u64 command, u32 index, u64& value, u16 domid = DOMID_SELF) {
    xen_hvm_param_t arg{domid, 0, index, value};
    const i64 result = g.op(__HYPERVISOR_hvm_op, command, arg);
    value = arg.value;
    return result;
  }
  i64 set_param(u32 index, u64 value) { return param(HVMOP_set_param, index, value); }
  multicall_entry_t& entry(u64 i) { return (&g.at<multicall_entry_t>(10))[i]; }
};

TEST_F(DomainTest, SaysThatItIsXen417) {
  EXPECT_EQ(version(XENVER_version), 4 << 16 | 17);
  EXPECT_EQ(version(XENVER_pagesize), 4096);
  EXPECT_EQ(version(XENVER_extraversion), 0);
  EXPECT_TRUE(text(1).starts_with("."));
  EXPECT_EQ(version(XENVER_capabilities), 0);
  EXPECT_TRUE(text(1).contains("xen-3.0-x86_64"));
  EXPECT_EQ(version(XENVER_commandline), 0);
  EXPECT_EQ(text(1), "<denied>");
  EXPECT_EQ(version(XENVER_guest_handle), 0);
  EXPECT_EQ(version(XENVER_compile_info), 0);
  EXPECT_EQ(version(XENVER_changeset), 0);
  EXPECT_LT(version(XENVER_build_id), 0);
  EXPECT_LT(version(77), 0);
}

TEST_F(DomainTest, FeaturesAreThoseOfARealHost) {
  g.at<xen_feature_info_t>(1) = {0, 0};
  EXPECT_EQ(version(XENVER_get_features), 0);
  EXPECT_EQ(g.at<xen_feature_info_t>(1).submap, 0x12305u);
  testing::FakeGuest pv{GuestKind::kPv};
  EXPECT_EQ(pv.call(__HYPERVISOR_xen_version, {XENVER_get_features, pv.address(1)}).value, 0);
  EXPECT_EQ(pv.at<xen_feature_info_t>(1).submap, 0x220e0u);
  EXPECT_EQ(pv.call(__HYPERVISOR_vm_assist, {VMASST_CMD_enable, VMASST_TYPE_pae_extended_cr3}).value, 0);
  EXPECT_EQ(pv.call(__HYPERVISOR_xen_version, {XENVER_get_features, pv.address(1)}).value, 0);
  EXPECT_EQ(pv.at<xen_feature_info_t>(1).submap, 0x220f0u);
  g.at<xen_feature_info_t>(1) = {1, 0};
  EXPECT_EQ(version(XENVER_get_features), -kXEINVAL);
}

TEST_F(DomainTest, HvmParametersByWhoMay) {
  u64 value = 0;
  g.domain->set_hvm_param(HVM_PARAM_STORE_PFN, 0xfeffc);
  EXPECT_EQ(param(HVMOP_get_param, HVM_PARAM_STORE_PFN, value), 0);
  EXPECT_EQ(value, 0xfeffcu);
  EXPECT_EQ(set_param(HVM_PARAM_STORE_PFN, 1), -kXEPERM);
  EXPECT_EQ(set_param(HVM_PARAM_STORE_EVTCHN, 3), 0);
  EXPECT_EQ(g.domain->hvm_param(HVM_PARAM_STORE_EVTCHN), 3u);
  for (const u32 index : {39u, 1000u, ~0u}) EXPECT_EQ(set_param(index, 1), -kXEINVAL);
  EXPECT_EQ(set_param(HVM_PARAM_IDENT_PT, 1), -kXEPERM);
  EXPECT_EQ(param(HVMOP_get_param, HVM_PARAM_STORE_PFN, value, 0), -kXEPERM);
  testing::FakeGuest pv{GuestKind::kPv};
  EXPECT_EQ(pv.call(__HYPERVISOR_hvm_op, {HVMOP_get_param, pv.address(1)}).value, -kXEINVAL);
}

TEST_F(DomainTest, UpcallsGoTheWayTheGuestAskedFor) {
  using How = Upcall::How;
  EXPECT_EQ(g.domain->upcall(0).how, How::kNone);
  EXPECT_EQ(set_param(HVM_PARAM_CALLBACK_IRQ, u64{HVM_PARAM_CALLBACK_TYPE_VECTOR} << 56 | 0xf3), 0);
  EXPECT_EQ(g.domain->upcall(0).how, How::kDirect);
  EXPECT_EQ(g.domain->upcall(1).vector, 0xf3);
  EXPECT_EQ(set_param(HVM_PARAM_CALLBACK_IRQ, u64{HVM_PARAM_CALLBACK_TYPE_VECTOR} << 56 | 3), 0);
  EXPECT_EQ(g.domain->upcall(0).how, How::kNone);
  EXPECT_EQ(set_param(HVM_PARAM_CALLBACK_IRQ, 11), 0);
  EXPECT_EQ(g.domain->upcall(0).how, How::kGsi);
  EXPECT_EQ(g.domain->upcall(1).how, How::kNone);
  xen_hvm_evtchn_upcall_vector_t own{1, 0x40};
  EXPECT_EQ(g.op(__HYPERVISOR_hvm_op, HVMOP_set_evtchn_upcall_vector, own), 0);
  EXPECT_EQ(g.domain->upcall(1).how, How::kLapic);
  EXPECT_EQ(g.domain->upcall(1).vector, 0x40);
  own = {1, 0xf};
  EXPECT_EQ(g.op(__HYPERVISOR_hvm_op, HVMOP_set_evtchn_upcall_vector, own), -kXEINVAL);
  own = {2, 0x40};
  EXPECT_EQ(g.op(__HYPERVISOR_hvm_op, HVMOP_set_evtchn_upcall_vector, own), -kXENOENT);
}

TEST_F(DomainTest, SettingTheUpcallDeliversWhatIsPending) {
  g.send(g.ipi(1));
  g.notified.clear();
  xen_hvm_evtchn_upcall_vector_t own{1, 0x40};
  g.op(__HYPERVISOR_hvm_op, HVMOP_set_evtchn_upcall_vector, own);
  EXPECT_TRUE(g.take_notice(1));
}

TEST_F(DomainTest, OtherHvmOperations) {
  g.timers.clock().advance(42);
  xen_hvm_get_time_t time{};
  EXPECT_EQ(g.op(__HYPERVISOR_hvm_op, HVMOP_get_time, time), 0);
  EXPECT_EQ(time.now, 42u);
  xen_hvm_get_mem_type_t type{DOMID_SELF, 0, {}, g.frame(1)};
  EXPECT_EQ(g.op(__HYPERVISOR_hvm_op, HVMOP_get_mem_type, type), 0);
  EXPECT_EQ(type.mem_type, HVMMEM_ram_rw);
  EXPECT_EQ(g.call(__HYPERVISOR_hvm_op, {HVMOP_pagetable_dying, g.address(1)}).value, -kXEINVAL);
  EXPECT_LT(g.call(__HYPERVISOR_hvm_op, {999, g.address(1)}).value, 0);
}

TEST_F(DomainTest, AssistsByKindOfGuest) {
  EXPECT_EQ(g.call(__HYPERVISOR_vm_assist, {VMASST_CMD_enable, VMASST_TYPE_writable_pagetables}).value, -kXEINVAL);
  EXPECT_EQ(g.call(__HYPERVISOR_vm_assist, {VMASST_CMD_enable, 64}).value, -kXEINVAL);
  EXPECT_EQ(g.call(__HYPERVISOR_vm_assist, {VMASST_CMD_enable, ~u64{0}}).value, -kXEINVAL);
  EXPECT_EQ(g.call(__HYPERVISOR_vm_assist, {VMASST_CMD_enable, VMASST_TYPE_runstate_update_flag}).value, 0);
  EXPECT_EQ(g.domain->vm_assists(), 1u << VMASST_TYPE_runstate_update_flag);
  EXPECT_EQ(g.call(__HYPERVISOR_vm_assist, {VMASST_CMD_disable, VMASST_TYPE_runstate_update_flag}).value, 0);
  EXPECT_EQ(g.domain->vm_assists(), 0u);
  testing::FakeGuest pv{GuestKind::kPv};
  EXPECT_EQ(pv.call(__HYPERVISOR_vm_assist, {VMASST_CMD_enable, VMASST_TYPE_writable_pagetables}).value, 0);
}

TEST_F(DomainTest, ConsoleIsLimitedInRate) {
  std::memset(g.ram[0].bytes, 'x', 20 * kPageSize);
  const auto write = [&](u64 count, u64 at) {
    return g.call(__HYPERVISOR_console_io, {CONSOLEIO_write, count, at}).value;
  };
  EXPECT_EQ(write(5, g.address(0)), 0);
  EXPECT_EQ(g.console, "xxxxx");
  for (int i = 0; i < 100; ++i) EXPECT_EQ(write(65536, g.address(0)), 0);
  EXPECT_LE(g.console.size(), 256_KiB);
  EXPECT_GT(g.counter("console_bytes_dropped"), 6u << 20);
  g.timers.clock().advance(1'000'000'000);
  const std::size_t before = g.console.size();
  for (int i = 0; i < 10; ++i) write(65536, g.address(0));
  EXPECT_EQ(g.console.size() - before, 64_KiB);
  EXPECT_EQ(write(65537, g.address(0)), -kXE2BIG);
  g.timers.clock().advance(1'000'000'000);
  EXPECT_EQ(write(16, 0), -kXEFAULT);
  EXPECT_EQ(g.call(__HYPERVISOR_console_io, {CONSOLEIO_read, 16, g.address(1)}).value, 0);
}

// ---- multicalls

TEST_F(DomainTest, MulticallAnswersEach) {
  entry(0) = {__HYPERVISOR_xen_version, 0, {XENVER_version}};
  entry(1) = {63, 0, {}};
  entry(2) = {__HYPERVISOR_sched_op, 0, {SCHEDOP_yield}};
  for (u64 i = 3; i < 20; ++i) entry(i) = {__HYPERVISOR_xen_version, 0, {XENVER_pagesize}};
  const Answer answer = g.call(__HYPERVISOR_multicall, {g.address(10), 20});
  EXPECT_EQ(answer.value, 0);
  EXPECT_EQ(answer.after, After::kYield);
  EXPECT_EQ(entry(0).result, u64{4 << 16 | 17});
  EXPECT_EQ(static_cast<i64>(entry(1).result), -kXENOSYS);
  for (u64 i = 3; i < 20; ++i) EXPECT_EQ(entry(i).result, 4096u);
}

TEST_F(DomainTest, NestedAndHugeMulticallsAreRefused) {
  entry(0) = {__HYPERVISOR_multicall, 0, {g.address(10), 1}};
  entry(1) = {__HYPERVISOR_xen_version, 0, {XENVER_version}};
  EXPECT_EQ(g.call(__HYPERVISOR_multicall, {g.address(10), 2}).value, 0);
  EXPECT_EQ(static_cast<i64>(entry(0).result), -kXEINVAL);
  EXPECT_EQ(entry(1).result, u64{4 << 16 | 17});
  for (const u64 count : {u64{8193}, u64{0xffffffff}})
    EXPECT_EQ(g.call(__HYPERVISOR_multicall, {g.address(10), count}).value, -kXE2BIG);
  EXPECT_EQ(g.call(__HYPERVISOR_multicall, {g.address(10), 0}).value, 0);
  EXPECT_EQ(g.call(__HYPERVISOR_multicall, {0, 1}).value, -kXEFAULT);
  EXPECT_EQ(g.call(__HYPERVISOR_multicall, {g.address(62), 8192}).value, -kXEFAULT);  // runs out of memory
  EXPECT_EQ(g.counter("refused_multicalls"), 3u);
  EXPECT_EQ(version(XENVER_version), 4 << 16 | 17);  // and nobody is in a multicall any more
}

TEST_F(DomainTest, ShutdownEndsAMulticall) {
  g.at<sched_shutdown_t>(1) = {SHUTDOWN_poweroff};
  entry(0) = {__HYPERVISOR_sched_op, 0, {SCHEDOP_shutdown, g.address(1)}};
  entry(1) = {__HYPERVISOR_xen_version, 77, {XENVER_version}};
  EXPECT_EQ(g.call(__HYPERVISOR_multicall, {g.address(10), 2}).after, After::kEnd);
  EXPECT_EQ(entry(1).result, 77u);
}

// The work of a whole multicall is bounded, not only that of each call.
TEST_F(DomainTest, MulticallOfLongOperationsEndsSoon) {
  xen_memory_reservation_t arg{};
  arg.extent_start.p = reinterpret_cast<xen_pfn_t*>(g.address(20));
  arg.nr_extents = ~u64{0};
  arg.domid = DOMID_SELF;
  g.at<xen_memory_reservation_t>(1) = arg;
  for (u64 i = 0; i < 64; ++i) entry(i) = {__HYPERVISOR_memory_op, 0, {XENMEM_decrease_reservation, g.address(1)}};
  EXPECT_EQ(g.call(__HYPERVISOR_multicall, {g.address(10), 64}).value, 0);
}

// ---- calls of one kind of guest only

TEST_F(DomainTest, GuestCallsComeFirst) {
  struct Calls final : GuestCalls {
    std::optional<Answer> hypercall(Caller&, u64 number, const std::array<u64, 6>& args) override {
      if (number == __HYPERVISOR_mmu_update) return Answer{static_cast<i64>(args[0])};
      return std::nullopt;
    }
  } calls;
  g.domain->set_guest_calls(&calls);
  EXPECT_EQ(g.call(__HYPERVISOR_mmu_update, {123}).value, 123);
  EXPECT_EQ(version(XENVER_version), 4 << 16 | 17);
  entry(0) = {__HYPERVISOR_mmu_update, 0, {5}};
  EXPECT_EQ(g.call(__HYPERVISOR_multicall, {g.address(10), 1}).value, 0);
  EXPECT_EQ(entry(0).result, 5u);
}

// ---- counting

TEST_F(DomainTest, HypercallsAreCountedByName) {
  for (int i = 0; i < 10; ++i) version(XENVER_version);
  g.call(__HYPERVISOR_xen_version, {XENVER_version}, 1);
  g.call(11);
  g.call(500);
  g.call(~u64{0});
  const auto all = g.domain->hypercall_statistics();
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].name, "hypercall_11");
  EXPECT_EQ(all[1].name, "xen_version");
  EXPECT_EQ(all[1].count, 11u);
  EXPECT_GE(all[1].p99_ns, all[1].p50_ns);
  EXPECT_EQ(all[2].name, "hypercall_other");
  EXPECT_EQ(all[2].count, 2u);
  EXPECT_EQ(g.counter("unknown_hypercalls"), 3u);
  EXPECT_EQ(hypercall_name(__HYPERVISOR_event_channel_op), "event_channel_op");
  EXPECT_EQ(hypercall_name(__HYPERVISOR_xenpmu_op), "xenpmu_op");
  EXPECT_EQ(hypercall_name(48), "hypercall_48");
}

TEST_F(DomainTest, DomainZerosHypercallsAreRefused) {
  for (const u64 number : {__HYPERVISOR_platform_op, __HYPERVISOR_sysctl, __HYPERVISOR_domctl})
    EXPECT_EQ(g.call(number, {1, g.address(1)}).value, -kXEPERM);
  for (const u64 number : {__HYPERVISOR_physdev_op, __HYPERVISOR_kexec_op, __HYPERVISOR_dm_op, __HYPERVISOR_argo_op})
    EXPECT_EQ(g.call(number, {1, g.address(1)}).value, -kXENOSYS);
}

// Any number, any arguments, good and bad pointers, junk in memory: answers, and nothing else.
TEST_F(DomainTest, AnythingGoes) {
  for (const GuestKind kind : {GuestKind::kPvh, GuestKind::kPv}) {
    testing::FakeGuest wild{kind};
    std::mt19937_64 random{7};
    const auto word = [&]() -> u64 {
      switch (random() % 6) {
        case 0:
          return random() % 40;
        case 1:
          return random();
        case 2:
          return wild.address(random() % 64, random() % 4096);
        case 3:
          return wild.frame(random() % 70);
        case 4:
          return u64{1} << random() % 64;
        default:
          return DOMID_SELF;
      }
    };
    for (int i = 0; i < 200000; ++i) {
      if (i % 8 == 0) wild.at<u64>(random() % 64, random() % 512 * 8) = word();
      if (i % 500 == 0) wild.timers.advance(random() % 10'000'000);
      if (i % 1000 == 0) wild.notified.clear();
      const u64 number = random() % 4 == 0 ? word() : random() % 45;
      wild.call(number, {random() % 3 != 0 ? random() % 30 : word(), word(), word(), word(), word(), word()},
                static_cast<unsigned>(random() % 2));
      if (i % 5000 == 0) wild.gone.clear();
      wild.domain->may_run(static_cast<unsigned>(random() % 2));
    }
    EXPECT_LE(wild.timers.armed(), 8u);
    EXPECT_GT(wild.counter("bad_pointers"), 1000u);
  }
}

}  // namespace
}  // namespace bulkhead::abi::xen
