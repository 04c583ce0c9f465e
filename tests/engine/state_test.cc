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
