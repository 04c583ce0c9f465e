// Tiny guests on the whole engine, in both modes.
#include "engine/dbt/dbt_engine.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace bulkhead::engine::dbt {
namespace {

constexpr u64 kRam = 1_MiB;
constexpr u16 kFlatData = 0x93 | 1u << 10 | 1u << 11;

Result<std::unique_ptr<Partition>> make(GuestMemory& memory, std::vector<std::pair<std::string, std::string>> options,
                                        unsigned vcpus = 1) {
  static const auto engine = make_dbt_engine();
  auto model = make_cpu_model("host", vcpus == 0 ? 1 : vcpus);
  if (!model) return std::unexpected(model.error());
  return engine->create({.vcpus = vcpus, .cpu_model = *model, .options = std::move(options)}, memory);
}

GuestMemory ram() { return std::move(*GuestMemory::create({RamRange{Gpa{0}, kRam}})); }

TEST(DbtEngine, ProbeSaysUsableOrWhyNot) {
  const Probe probe = make_dbt_engine()->probe();
  EXPECT_EQ(probe.kind, EngineKind::kDbt);
  EXPECT_EQ(probe.usable, probe.reason.empty());
  EXPECT_GE(probe.capabilities.max_vcpus, 8u);
}

TEST(DbtEngine, UnknownAndBadOptionsAreRefusedByName) {
  GuestMemory memory = ram();
  const auto refused = [&](std::string name, std::string value) {
    auto partition = make(memory, {{name, value}});
    return !partition && partition.error().message.find(name) != std::string::npos;
  };
  EXPECT_TRUE(refused("dbt.speed", "fast"));
  EXPECT_TRUE(refused("kvm.irqchip", "split"));
  EXPECT_TRUE(refused("dbt.mode", "psychic"));
  for (const char* bad : {"", "0", "3", "1025", "16M", "-1", " 16", "99999999999999999999"})
    EXPECT_TRUE(refused("dbt.cache", bad)) << bad;
  EXPECT_TRUE(refused("dbt.perf_map", "/no/such/folder/map"));
  EXPECT_TRUE(make(memory, {{"dbt.mode", "interpreter"}, {"dbt.cache", "4"}}));
}

TEST(DbtEngine, VcpuCountsOutOfRangeAreRefused) {
  GuestMemory memory = ram();
  EXPECT_FALSE(make(memory, {}, 0));
  EXPECT_FALSE(make(memory, {}, 9));
  EXPECT_TRUE(make(memory, {}, 8));
}

class DbtGuest : public testing::TestWithParam<const char*> {
 protected:
  void start(std::vector<u8> code, unsigned vcpus = 1) {
    auto partition = make(memory, {{"dbt.mode", GetParam()}}, vcpus);
    ASSERT_TRUE(partition) << partition.error().message;
    partition_ = std::move(*partition);
    put(0x1000, code);
    VcpuState state = vcpu().state();
    enter_real_mode(state);
    ASSERT_TRUE(vcpu().set_state(state));
  }
  // 16-bit code at 0x1000, with data segments that reach all of the low 4 GiB.
  static void enter_real_mode(VcpuState& state) {
    state.rip = 0x1000;
    state.segments[1] = {0, 0, 0xffff, 0x9b};
    for (const unsigned i : {0u, 2u, 3u, 4u, 5u}) state.segments[i] = {0, 0, 0xffffffff, kFlatData};
    state.segments[2] = {0, 0, 0xffff, 0x93};
    state.gpr[4] = 0x7000;
    state.idtr = {0, 0x3ff};
  }
  // 64-bit code at 0x1000 under identity paging of the first 2 MiB.
  static void enter_long_mode(GuestMemory& at, VcpuState& state) {
    (void)at.store(Gpa{0x10000}, u64{0x11003});
    (void)at.store(Gpa{0x11000}, u64{0x12003});
    (void)at.store(Gpa{0x12000}, u64{0x83});
    state.rip = 0x1000;
    state.cr0 = 0x80000031, state.cr3 = 0x10000, state.cr4 = 0x620, state.efer = 0xd00;
    state.segments[1] = {8, 0, 0xffffffff, 0x9b | 1u << 9 | 1u << 11};
    for (const unsigned i : {0u, 2u, 3u, 4u, 5u}) state.segments[i] = {16, 0, 0xffffffff, kFlatData};
    state.gpr[4] = 0x7000;
  }
  void put(u64 at, const std::vector<u8>& bytes) {
    ASSERT_TRUE(memory.write(Gpa{at}, std::as_bytes(std::span{bytes})));
  }
  Vcpu& vcpu(unsigned index = 0) { return partition_->vcpu(index); }
  template <class T>
  T* run_to(unsigned index = 0) {
    Exit& exit = vcpu(index).run();
    T* const wanted = std::get_if<T>(&exit);
    if (wanted == nullptr) {
      ADD_FAILURE() << exit_name(exit) << ": " << vcpu(index).describe();
      static T nothing;
      return &nothing;
    }
    return wanted;
  }

  GuestMemory memory = ram();
  std::unique_ptr<Partition> partition_;
};

INSTANTIATE_TEST_SUITE_P(Modes, DbtGuest, testing::Values("interpreter", "translator"));

TEST_P(DbtGuest, PortWriteThenReadThenHalt) {
  start({0xba, 0xf8, 0x03,  // mov dx, 0x3f8
         0xb0, 0x41, 0xee,  // mov al, 'A'; out dx, al
         0xed,              // in ax, dx
         0xa3, 0x00, 0x20,  // mov [0x2000], ax
         0xfa, 0xf4});      // cli; hlt
  const auto* out = run_to<PortExit>();
  EXPECT_EQ(out->port, 0x3f8);
  EXPECT_TRUE(out->write);
  EXPECT_EQ(out->value, 0x41u);
  auto* in = run_to<PortExit>();
  EXPECT_FALSE(in->write);
  EXPECT_EQ(in->size, 2);
  in->value = 0x1234;
  run_to<HaltExit>();
  EXPECT_EQ(memory.load<u16>(Gpa{0x2000}), 0x1234);
  EXPECT_EQ(vcpu().state().mp_state, MpState::kHalted);
  run_to<HaltExit>();  // asked again, it says so again
}

TEST_P(DbtGuest, MmioReadModifyWriteIsTwoExitsAndOneInstruction) {
  start({0x66, 0x67, 0x81, 0x05, 0x00, 0x00, 0x00, 0xd0, 0x11, 0x00, 0x00, 0x00,  // add dword [0xd0000000], 0x11
         0xfa, 0xf4});
  auto* read = run_to<MmioExit>();
  EXPECT_EQ(read->address, Gpa{0xd0000000});
  EXPECT_FALSE(read->write);
  read->value = 0x100;
  const auto* write = run_to<MmioExit>();
  EXPECT_TRUE(write->write);
  EXPECT_EQ(write->value, 0x111u);
  run_to<HaltExit>();
}

TEST_P(DbtGuest, StateBeforeCompletionIsBeforeTheInstruction) {
  start({0xe4, 0x60, 0xfa, 0xf4});  // in al, 0x60
  auto* in = run_to<PortExit>();
  EXPECT_EQ(vcpu().state().rip, 0x1000u);
  in->value = 0x55;
  run_to<HaltExit>();
  EXPECT_EQ(vcpu().state().gpr[0] & 0xff, 0x55u);
}

TEST_P(DbtGuest, KickEndsAnEndlessLoop) {
  start({0xeb, 0xfe});  // jmp $
  std::thread kicker{[this] { vcpu().kick(); }};
  run_to<KickedExit>();
  kicker.join();
  vcpu().kick();  // before run(): the next one returns
  run_to<KickedExit>();
}

TEST_P(DbtGuest, KickEndsAHaltThatNothingElseEnds) {
  start({0xfb, 0xf4, 0xeb, 0xfc});  // sti; hlt; jmp
  std::thread kicker{[this] {
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
    vcpu().kick();
  }};
  run_to<KickedExit>();
  kicker.join();
}

TEST_P(DbtGuest, MsiWakesAHaltAndRunsTheHandler) {
  start({0x66, 0x67, 0xc7, 0x05, 0xf0, 0x00, 0xe0, 0xfe, 0xff, 0x01, 0x00, 0x00,  // mov dword [0xfee000f0], 0x1ff
         0xe6, 0x80,                                                              // out 0x80, al
         0xfb, 0xf4,                                                              // sti; hlt
         0xe6, 0x81, 0xfa, 0xf4});                                                // out 0x81, al; cli; hlt
  put(0x41 * 4, {0x00, 0x30, 0x00, 0x00});
  put(0x3000, {0xe6, 0x82, 0x66, 0x67, 0xc7, 0x05, 0xb0, 0x00, 0xe0, 0xfe, 0x00, 0x00, 0x00, 0x00, 0xcf});
  EXPECT_EQ(run_to<PortExit>()->port, 0x80);
  std::thread other{[this] {
    std::this_thread::sleep_for(std::chrono::milliseconds{5});
    partition_->send({0xfee00000, 0x41});
  }};
  EXPECT_EQ(run_to<PortExit>()->port, 0x82);
  EXPECT_EQ(run_to<PortExit>()->port, 0x81);
  run_to<HaltExit>();
  other.join();
}

TEST_P(DbtGuest, TimerEndsAHalt) {
  start({0x66, 0x67, 0xc7, 0x05, 0xf0, 0x00, 0xe0, 0xfe, 0xff, 0x01, 0x00, 0x00,  // spurious: enable
         0x66, 0x67, 0xc7, 0x05, 0x20, 0x03, 0xe0, 0xfe, 0x41, 0x00, 0x00, 0x00,  // LVT timer: one-shot, 0x41
         0x66, 0x67, 0xc7, 0x05, 0x80, 0x03, 0xe0, 0xfe, 0x00, 0x00, 0x01, 0x00,  // count
         0xfb, 0xf4, 0xfa, 0xf4});                                                // sti; hlt; cli; hlt
  put(0x41 * 4, {0x00, 0x30, 0x00, 0x00});
  put(0x3000, {0xe6, 0x82, 0xcf});
  EXPECT_EQ(run_to<PortExit>()->port, 0x82);
  run_to<HaltExit>();
}

TEST_P(DbtGuest, TimerInterruptsALoop) {
  start({0x66, 0x67, 0xc7, 0x05, 0xf0, 0x00, 0xe0, 0xfe, 0xff, 0x01, 0x00, 0x00, 0x66,
         0x67, 0xc7, 0x05, 0x20, 0x03, 0xe0, 0xfe, 0x41, 0x00, 0x00, 0x00, 0x66, 0x67,
         0xc7, 0x05, 0x80, 0x03, 0xe0, 0xfe, 0x00, 0x00, 0x01, 0x00, 0xfb, 0xeb, 0xfe});  // sti; jmp $
  put(0x41 * 4, {0x00, 0x30, 0x00, 0x00});
  put(0x3000, {0xe6, 0x82, 0xfa, 0xf4});
  EXPECT_EQ(run_to<PortExit>()->port, 0x82);
}

TEST_P(DbtGuest, NmiEndsAHaltWithInterruptsOff) {
  start({0xfa, 0xf4, 0xe6, 0x81, 0xf4});
  put(2 * 4, {0x00, 0x30, 0x00, 0x00});
  put(0x3000, {0xe6, 0x82, 0xcf});
  run_to<HaltExit>();
  partition_->inject_nmi(0);
  EXPECT_EQ(run_to<PortExit>()->port, 0x82);
  EXPECT_EQ(run_to<PortExit>()->port, 0x81);
  run_to<HaltExit>();
}

TEST_P(DbtGuest, TripleFaultIsAShutdownAndStaysOne) {
  start({0x0f, 0x0b});
  VcpuState state = vcpu().state();
  enter_long_mode(memory, state);
  state.idtr = {0, 0};
  ASSERT_TRUE(vcpu().set_state(state));
  EXPECT_EQ(run_to<ShutdownExit>()->reason, ShutdownReason::kTripleFault);
  run_to<ShutdownExit>();
}

TEST_P(DbtGuest, SecondVcpuStartsBySipi) {
  start({0x66, 0x67, 0xc7, 0x05, 0x10, 0x03, 0xe0, 0xfe, 0x00, 0x00, 0x00, 0x01,  // ICR high: 1
         0x66, 0x67, 0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x00, 0xc5, 0x00, 0x00,  // INIT
         0x66, 0x67, 0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x08, 0x46, 0x00, 0x00,  // SIPI 0x08
         0xfa, 0xf4},
        2);
  put(0x8000, {0xe6, 0x99, 0xfa, 0xf4});
  EXPECT_EQ(vcpu(1).state().mp_state, MpState::kWaitForSipi);
  std::thread second{[this] { EXPECT_EQ(run_to<PortExit>(1)->port, 0x99); }};
  run_to<HaltExit>();
  second.join();
  EXPECT_EQ(vcpu(1).state().segments[1].base, 0x8000u);
}

TEST_P(DbtGuest, InitOfTheFirstVcpuIsAReset) {
  start({0x66, 0x67, 0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x00, 0x45, 0x04, 0x00, 0xeb, 0xfe});  // INIT to self
  EXPECT_EQ(run_to<ShutdownExit>()->reason, ShutdownReason::kInit);
}

TEST_P(DbtGuest, LongModeLoopComputes) {
  start({0x31, 0xc0, 0xb9, 0x40, 0x42, 0x0f, 0x00,  // xor eax, eax; mov ecx, 1000000
         0x48, 0x01, 0xc8, 0xff, 0xc9, 0x75, 0xf9,  // add rax, rcx; dec ecx; jnz
         0xe7, 0x80, 0xfa, 0xf4});                  // out 0x80, eax
  VcpuState state = vcpu().state();
  enter_long_mode(memory, state);
  ASSERT_TRUE(vcpu().set_state(state));
  EXPECT_EQ(run_to<PortExit>()->value, u32(u64{1000000} * 1000001 / 2));
  EXPECT_EQ(vcpu().state().gpr[0], u64{1000000} * 1000001 / 2);
}

TEST_P(DbtGuest, StateRoundTripIsExact) {
  start({0xfa, 0xf4});
  VcpuState state = vcpu().state();
  enter_long_mode(memory, state);
  for (u64 i = 0; i < 16; ++i) state.gpr[i] = 0x1111111111111111 * i;
  state.cr2 = 0x1234, state.dr[0] = 0x99;
  state.idtr = {0xffff800000001000, 0xfff};
  state.segments[4].base = 0x7fff00000000;
  for (MsrValue& msr : state.msrs)
    if (msr.index == 0xc0000082) msr.value = 0xffffffff81000000;
  state.pending_exception = PendingEvent{14, 2, 0x5000};
  state.interrupt_shadow = true;
  ASSERT_TRUE(vcpu().set_state(state));
  VcpuState again = vcpu().state();
  const auto without_clock = [](VcpuState& of) {
    std::erase_if(of.msrs, [](const MsrValue& m) { return m.index == 0x10; });
  };
  without_clock(state);
  without_clock(again);
  EXPECT_EQ(again.gpr, state.gpr);
  EXPECT_EQ(again.segments, state.segments);
  EXPECT_EQ(again.idtr, state.idtr);
  EXPECT_EQ(again.cr2, state.cr2);
  EXPECT_EQ(again.dr, state.dr);
  EXPECT_EQ(again.msrs, state.msrs);
  EXPECT_EQ(again.xsave, state.xsave);
  EXPECT_EQ(again.lapic, state.lapic);
  EXPECT_EQ(again.pending_exception, state.pending_exception);
  EXPECT_EQ(again.interrupt_shadow, state.interrupt_shadow);
}

u64 tsc_in(const VcpuState& state) {
  for (const MsrValue& msr : state.msrs)
    if (msr.index == 0x10) return msr.value;
  return 0;
}

// A machine takes the state, loads a kernel for a second, and sets it: the first vCPU's clock must not be behind the
// others' by that.
TEST_P(DbtGuest, ClockGoesOnBetweenStateAndSetState) {
  start({0xfa, 0xf4}, 2);
  const VcpuState state = vcpu().state();
  std::this_thread::sleep_for(std::chrono::milliseconds{20});
  ASSERT_TRUE(vcpu().set_state(state));
  const u64 other_before = tsc_in(vcpu(1).state()), first = tsc_in(vcpu().state()),
            other_after = tsc_in(vcpu(1).state());
  EXPECT_LE(other_before, first);
  EXPECT_LE(first, other_after);
}

TEST_P(DbtGuest, ClocksThatAreSetAlikeAgree) {
  start({0xfa, 0xf4}, 2);
  for (const unsigned index : {0u, 1u}) {
    VcpuState state = vcpu(index).state();
    for (MsrValue& msr : state.msrs)
      if (msr.index == 0x10) msr.value = u64{1} << 50;
    ASSERT_TRUE(vcpu(index).set_state(state));
  }
  const u64 other_before = tsc_in(vcpu(1).state()), first = tsc_in(vcpu().state()),
            other_after = tsc_in(vcpu(1).state());
  EXPECT_GE(first, u64{1} << 50);
  EXPECT_LE(other_before, first);
  EXPECT_LE(first, other_after);
}

TEST_P(DbtGuest, ImpossibleStatesAreRefused) {
  start({0xfa, 0xf4});
  const VcpuState good = vcpu().state();
  const auto refused = [&](auto change) {
    VcpuState state = good;
    change(state);
    return !vcpu().set_state(state);
  };
  EXPECT_TRUE(refused([](VcpuState& s) { s.cr0 = 0x80000000; }));
  EXPECT_TRUE(refused([](VcpuState& s) { s.cr4 = ~u64{0}; }));
  EXPECT_TRUE(refused([](VcpuState& s) { s.efer = 0x400; }));
  EXPECT_TRUE(refused([](VcpuState& s) { s.xcr0 = 0; }));
  EXPECT_TRUE(refused([](VcpuState& s) { s.xsave.resize(1 << 20); }));
  EXPECT_TRUE(refused([](VcpuState& s) { s.cr8 = 16; }));
  EXPECT_TRUE(refused([](VcpuState& s) { s.msrs.push_back({0xc0000082, 0x8000000000000000}); }));
  EXPECT_TRUE(vcpu().set_state(good));
}

// vCPU 0 rewrites a function that vCPU 1 has run, then tells it by an IPI; vCPU 1 must run the new one.
TEST_P(DbtGuest, CodeWrittenByAnotherVcpuIsSeenAfterAnIpi) {
  start({0x66, 0x67, 0xc7, 0x05, 0x10, 0x03, 0xe0, 0xfe, 0x00, 0x00, 0x00, 0x01,  // ICR high: 1
         0x66, 0x67, 0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x00, 0xc5, 0x00, 0x00,  // INIT
         0x66, 0x67, 0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x08, 0x46, 0x00, 0x00,  // SIPI 0x08
         0x80, 0x3e, 0x00, 0x50, 0x00, 0x74, 0xf9,                                // wait for [0x5000] != 0
         0xc6, 0x06, 0x01, 0x60, 0x22,                                            // mov byte [0x6001], 0x22
         0x66, 0x67, 0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x00, 0x44, 0x00, 0x00,  // NMI
         0xfa, 0xf4},
        2);
  put(0x8000, {0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x70,  // ds = ss = 0, sp
               0x9a, 0x00, 0x60, 0x00, 0x00,                          // call far 0:0x6000
               0xe6, 0x90,                                            // out 0x90, al
               0xc6, 0x06, 0x00, 0x50, 0x01, 0xeb, 0xfe});            // mov byte [0x5000], 1; jmp $
  put(0x6000, {0xb0, 0x11, 0xcb});                                    // mov al, 0x11; retf
  put(2 * 4, {0x00, 0x30, 0x00, 0x00});
  put(0x3000, {0x9a, 0x00, 0x60, 0x00, 0x00, 0xe6, 0x91, 0xfa, 0xf4});
  std::thread second{[this] {
    EXPECT_EQ(run_to<PortExit>(1)->value, 0x11u);
    const auto* after = run_to<PortExit>(1);
    EXPECT_EQ(after->port, 0x91);
    EXPECT_EQ(after->value, 0x22u);
  }};
  run_to<HaltExit>();
  second.join();
}

TEST_P(DbtGuest, CountersCountHalts) {
  start({0xfa, 0xf4});
  run_to<HaltExit>();
  const telemetry::CounterSet& counters = vcpu().counters();
  EXPECT_EQ(counters.name(0), "halts");
  EXPECT_EQ(counters[0].value(), 1u);
  EXPECT_EQ(vcpu().counters()[0].value(), 1u);
}

TEST_P(DbtGuest, DescribeShowsRipAndItsBytes) {
  start({0xfa, 0xf4});
  EXPECT_NE(vcpu().describe().find("rip 0x1000"), std::string::npos);
  EXPECT_NE(vcpu().describe().find("fa f4"), std::string::npos);
}

}  // namespace
}  // namespace bulkhead::engine::dbt
