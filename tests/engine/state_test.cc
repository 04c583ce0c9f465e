// The architectural state, read and written from outside.
#include "tests/engine/tiny_guest.h"

namespace bulkhead::engine {
namespace {

TEST_P(Conformance, StateRoundTrip) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([](Code& c) { c.hlt(); });
  VcpuState state = guest.vcpu().state();
  for (unsigned i = 0; i < 16; ++i) state.gpr[i] = 0x0101010101010101 * (i + 1);
  state.rflags = 0x2 | 0x8d5;
  state.cr2 = 0xdeadbeef;
  state.dr[0] = 0x1234;
  state.segments[4].base = 0x7fff00001000;
  ASSERT_TRUE(guest.vcpu().set_state(state));
  const VcpuState back = guest.vcpu().state();
  EXPECT_EQ(back.gpr, state.gpr);
  EXPECT_EQ(back.rip, state.rip);
  EXPECT_EQ(back.rflags, state.rflags);
  EXPECT_EQ(back.segments, state.segments);
  EXPECT_EQ(back.gdtr, state.gdtr);
  EXPECT_EQ(back.idtr, state.idtr);
  EXPECT_EQ(back.tr, state.tr);
  EXPECT_EQ(back.cr0, state.cr0);
  EXPECT_EQ(back.cr2, state.cr2);
  EXPECT_EQ(back.cr3, state.cr3);
  EXPECT_EQ(back.cr4, state.cr4);
  EXPECT_EQ(back.efer, state.efer);
  EXPECT_EQ(back.dr, state.dr);
  EXPECT_EQ(back.lapic, state.lapic);
  EXPECT_EQ(back.xsave, state.xsave);
  EXPECT_EQ(back.mp_state, state.mp_state);
}

TEST_P(Conformance, StateMovesToAnotherPartition) {
  BH_NEEDS(Need::kEveryInstruction);
  BH_CONFORMANCE_GUEST(first);
  const auto emit = [](Code& c) {
    c.mov(c.eax, 5);
    c.cvtsi2sd(c.xmm3, c.eax);
    emit_report(c);
    c.addsd(c.xmm3, c.xmm3);
    c.cvttsd2si(c.eax, c.xmm3);
    emit_report(c);
  };
  first.long_mode(emit);
  EXPECT_EQ(first.report(), 5u);
  // The port write is done as far as the machine is concerned; let the vCPU get behind it.
  first.vcpu().kick();
  EXPECT_TRUE(std::holds_alternative<KickedExit>(first.vcpu().run()));
  const VcpuState state = first.vcpu().state();
  BH_CONFORMANCE_GUEST(second);
  second.long_mode(emit);
  ASSERT_TRUE(second.vcpu().set_state(state));
  EXPECT_EQ(second.report(), 10u);
}

TEST_P(Conformance, StateBeforeCompletionIsTheOneBeforeTheInstruction) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([](Code& c) {
    c.mov(c.eax, 0x55);
    c.mov(c.edx, 0x60);
    c.in_(c.al, c.dx);
    c.hlt();
  });
  guest.expect<PortExit>().value = 0xaa;
  EXPECT_EQ(guest.vcpu().state().rip, kCodeAt + 10);
  EXPECT_EQ(guest.vcpu().state().gpr[0], 0x55u);
  guest.expect<HaltExit>();
  EXPECT_EQ(guest.vcpu().state().gpr[0], 0xaau);
}

u64 tsc_of(const VcpuState& state) {
  for (const MsrValue& msr : state.msrs)
    if (msr.index == 0x10) return msr.value;
  return 0;
}

// KVM takes a TSC within a second of its own for an attempt to synchronise, and changes nothing.
TEST_P(Conformance, ATscIsThereAsWritten) {
  BH_NEEDS(Need::kEveryInstruction);  // without hardware, KVM shows guests the host's own TSC
  BH_CONFORMANCE_GUEST(guest, 2);
  VcpuState state = guest.vcpu(0).state();
  ASSERT_NE(tsc_of(state), 0u);
  const u64 wanted = tsc_of(state) + make_cpu_model("host", 2)->tsc_hz * 3 / 4;
  for (MsrValue& msr : state.msrs)
    if (msr.index == 0x10) msr.value = wanted;
  ASSERT_TRUE(guest.vcpu(0).set_state(state));
  EXPECT_GE(tsc_of(guest.vcpu(0).state()), wanted);
}

TEST_P(Conformance, TheClockOfTheGuestAbiMoves) {
  if (GetParam().make()->probe().kind != EngineKind::kKvm) GTEST_SKIP() << GetParam().name << ": has no such ABI";
  BH_CONFORMANCE_GUEST(first, 1, ParavirtAbi::kKvm);
  VcpuState state = first.vcpu().state();
  constexpr u64 kLater = 1'000'000'000'000;
  state.paravirt_clock_ns += kLater;
  BH_CONFORMANCE_GUEST(second, 1, ParavirtAbi::kKvm);
  ASSERT_TRUE(second.vcpu().set_state(state));
  EXPECT_GE(second.vcpu().state().paravirt_clock_ns, kLater);
}

TEST_P(Conformance, OtherVcpusWaitForSipi) {
  BH_CONFORMANCE_GUEST(guest, 2);
  EXPECT_EQ(guest.vcpu(0).state().mp_state, MpState::kRunnable);
  EXPECT_EQ(guest.vcpu(1).state().mp_state, MpState::kWaitForSipi);
}

TEST_P(Conformance, DescriptionNamesThePlace) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([](Code& c) { c.hlt(); });
  EXPECT_NE(guest.vcpu().describe().find("100000"), std::string::npos);
}

}  // namespace
}  // namespace bulkhead::engine
