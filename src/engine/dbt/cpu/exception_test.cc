#include <gtest/gtest.h>

#include "engine/dbt/cpu/test_guest.h"

namespace bulkhead::engine::dbt {
namespace {

constexpr u64 kHandler = 0x123000;

class LongTest : public testing::Test {
 protected:
  LongTest() {
    guest.long_mode();
    for (unsigned vector = 0; vector < 32; ++vector) guest.gate64(vector, kHandler + vector);
  }
  Cpu& cpu() { return guest.cpu(); }
  CpuState& s() { return guest.s(); }
  u64 stack(unsigned word) { return guest.peek(s().gpr[kRsp] + 8 * word); }
  StepResult deliver(u8 vector, std::optional<u32> error = std::nullopt, u64 address = 0) {
    return cpu().deliver({vector, error.has_value(), error.value_or(0), address});
  }
  TestGuest guest;
};

TEST_F(LongTest, SamePrivilege) {
  s().rflags = 0x202 | kTf | kNt | kRf | kCf;
  s().gpr[kRsp] = 0x7105;
  EXPECT_EQ(deliver(kGp, 0x18), StepResult::kBranch);
  EXPECT_EQ(s().rip, kHandler + kGp);
  EXPECT_EQ(s().gpr[kRsp], 0x7100u - 6 * 8);  // aligned first
  EXPECT_EQ(stack(0), 0x18u);
  EXPECT_EQ(stack(1), 0x7000u);
  EXPECT_EQ(stack(2), TestGuest::kCode64);
  EXPECT_EQ(stack(3), 0x202 | kTf | kNt | kRf | kCf);
  EXPECT_EQ(stack(4), 0x7105u);
  EXPECT_EQ(stack(5), TestGuest::kData);
  EXPECT_EQ(s().rflags, 2 | kCf);
  EXPECT_EQ(s().seg[kSs].selector, TestGuest::kData);
}

TEST_F(LongTest, FaultsSaveRfAndInterruptsDoNot) {
  deliver(kUd);
  EXPECT_NE(stack(2) & kRf, 0u);
  guest.gate64(0x40, 0x9000);
  cpu().deliver_external(0x40);
  EXPECT_EQ(stack(2) & kRf, 0u);
}

TEST_F(LongTest, TrapGateKeepsIf) {
  s().rflags = 0x202;
  guest.gate64(kBr, kHandler, 0x8f);
  deliver(kBr);
  EXPECT_EQ(s().rflags, 0x202u);
}

TEST_F(LongTest, FromUserTheStackIsTheTsss) {
  guest.to_user();
  s().gpr[kRsp] = 0x6543;
  EXPECT_EQ(deliver(kPageFault, 6, 0xabc000), StepResult::kBranch);
  EXPECT_EQ(s().cr2, 0xabc000u);
  EXPECT_EQ(s().cpl, 0);
  EXPECT_EQ(s().gpr[kRsp], TestGuest::kStack - 48);
  EXPECT_EQ(stack(0), 6u);
  EXPECT_EQ(stack(2), TestGuest::kUserCode64);
  EXPECT_EQ(stack(4), 0x6543u);
  EXPECT_EQ(stack(5), TestGuest::kUserData);
  EXPECT_EQ(s().seg[kSs].selector, 0);
  EXPECT_TRUE(s().seg[kSs].unusable());
  EXPECT_EQ(s().tlb_space, TlbSpace::kSupervisorAc);
}

TEST_F(LongTest, Ist) {
  for (unsigned ist = 1; ist <= 7; ++ist) {
    guest.poke(TestGuest::kTss + 28 + 8 * ist, 0x100000 + 0x1000 * ist);
    guest.gate64(kNmi, kHandler, 0x8e, TestGuest::kCode64, ist);
    cpu().deliver_external(kNmi);
    EXPECT_EQ(s().gpr[kRsp], 0x100000 + 0x1000 * ist - 40);
  }
}

TEST_F(LongTest, SoftwareInterruptNeedsTheGatesDpl) {
  guest.to_user();
  const auto fault = guest.attempt([&] { cpu().deliver_software_interrupt(5, 0x7002, false, false); });
  ASSERT_TRUE(fault);
  EXPECT_EQ(fault->vector, kGp);
  EXPECT_EQ(fault->error, 5u * 8 + 2);  // not external
  guest.gate64(kBp, kHandler, 0xee);
  EXPECT_FALSE(guest.attempt([&] { cpu().deliver_software_interrupt(kBp, 0x7001, true, false); }));
  EXPECT_EQ(stack(0), 0x7001u);
  EXPECT_EQ(stack(2) & kRf, 0u);
}

TEST_F(LongTest, IcebpIgnoresTheGatesDpl) {
  guest.to_user();
  EXPECT_FALSE(guest.attempt([&] { cpu().deliver_software_interrupt(kDb, 0x7001, false, true); }));
  EXPECT_EQ(s().rip, kHandler + kDb);
}

TEST_F(LongTest, DebugExceptionSetsDr6AndClearsGd) {
  s().dr[7] = 0x400 | 1u << 13;
  s().dr[6] = 0xffff0ff0 | 3;
  deliver(kDb, std::nullopt, 1u << 14 | 4);
  EXPECT_EQ(s().dr[6], 0xffff0ff0u | 1u << 14 | 4);
  EXPECT_EQ(s().dr[7], 0x400u);
}

// ---- faults while a fault is delivered

TEST_F(LongTest, GateNotPresentIsNp) {
  guest.gate64(kUd, kHandler, 0x0e);
  deliver(kUd);
  EXPECT_EQ(s().rip, kHandler + kNp);
  EXPECT_EQ(stack(0), kUd * 8u + 3);
  EXPECT_EQ(stack(1), 0x7000u);
}

TEST_F(LongTest, ContributoryOnContributoryIsADoubleFault) {
  guest.gate64(kGp, kHandler, 0x0e);
  EXPECT_EQ(deliver(kGp, 0), StepResult::kBranch);
  EXPECT_EQ(s().rip, kHandler + kDf8);
  EXPECT_EQ(stack(0), 0u);
}

TEST_F(LongTest, FaultOnAPageFaultIsADoubleFault) {
  guest.gate64(kPageFault, kHandler, 0x0e);
  deliver(kPageFault, 0, 0x1234);
  EXPECT_EQ(s().rip, kHandler + kDf8);
  EXPECT_EQ(s().cr2, 0x1234u);
}

TEST_F(LongTest, PageFaultOnAContributoryOneIsServed) {
  s().gpr[kRsp] = 0x50000010;
  guest.gate64(kPageFault, kHandler, 0x8e, TestGuest::kCode64, 1);
  guest.poke(TestGuest::kTss + 36, 0x100000);
  deliver(kGp, 0);
  EXPECT_EQ(s().rip, kHandler);
  EXPECT_EQ(s().cr2, 0x50000008u);
}

TEST_F(LongTest, BadStackTwiceThenIstIsADoubleFault) {
  s().gpr[kRsp] = 0x50000010;
  guest.gate64(kDf8, kHandler, 0x8e, TestGuest::kCode64, 1);
  guest.poke(TestGuest::kTss + 36, 0x100000);
  EXPECT_EQ(deliver(kPageFault, 0, 1), StepResult::kBranch);
  EXPECT_EQ(s().rip, kHandler);
  EXPECT_EQ(s().gpr[kRsp], 0x100000u - 48);
}

TEST_F(LongTest, TripleFaults) {
  const auto shutdown = [](TestGuest& bad) {
    const u64 rip = bad.s().rip;
    EXPECT_EQ(bad.cpu().deliver({kUd, false, 0, 0}), StepResult::kShutdown);
    EXPECT_EQ(std::get<ShutdownExit>(bad.cpu().exit).reason, ShutdownReason::kTripleFault);
    EXPECT_EQ(bad.s().rip, rip);
  };
  for (const DescriptorTable idt :
       {DescriptorTable{0, 0}, DescriptorTable{0xd0000000, 0xfff}, DescriptorTable{0x3fffff, 0xfff},
        DescriptorTable{0x1234500000000000, 0xffff}, DescriptorTable{TestGuest::kGdt, 0xfff}}) {
    TestGuest bad;
    bad.long_mode();
    bad.s().idtr = idt;
    shutdown(bad);
  }
  s().gpr[kRsp] = 0x1234500000000000;
  shutdown(guest);
}

TEST_F(LongTest, HandlersCodeSegmentIsJudged) {
  struct Row {
    u16 selector;
    u64 descriptor;
    u8 vector;
    u32 error;
  };
  const Row rows[] = {{0, 0, kGp, 1},
                      {TestGuest::kFree, TestGuest::descriptor(0x92, 0xa), kGp, TestGuest::kFree | 1u},
                      {TestGuest::kFree, TestGuest::descriptor(0x9a, 0xc), kGp, TestGuest::kFree | 1u},  // not 64-bit
                      {TestGuest::kFree, TestGuest::descriptor(0x9a, 0xe), kGp, TestGuest::kFree | 1u},  // L and D
                      {TestGuest::kFree, TestGuest::descriptor(0x1a, 0xa), kNp, TestGuest::kFree | 1u},
                      {TestGuest::kFree, TestGuest::descriptor(0xfa, 0xa), kGp, TestGuest::kFree | 1u},  // outer ring
                      {0x1f8 + 8, 0, kGp, 0x200 | 1u}};
  for (const Row& row : rows) {
    SCOPED_TRACE(&row - rows);
    if (row.selector == TestGuest::kFree) guest.set_gdt(row.selector, row.descriptor);
    guest.gate64(0x40, kHandler, 0x8e, row.selector);
    cpu().deliver_external(0x40);
    EXPECT_EQ(s().rip, kHandler + row.vector);
    EXPECT_EQ(stack(0), row.error);
  }
}

TEST_F(LongTest, BadStacksInTheTss) {
  guest.to_user();
  s().tr.limit = 8;  // RSP0 reaches beyond
  cpu().deliver_external(kNmi);
  EXPECT_EQ(s().cpl, 3);  // even #TS has no stack: triple fault
  s().tr.limit = 0xfff;
  guest.poke(TestGuest::kTss + 36, 0x1234500000000000);
  guest.gate64(kNmi, kHandler, 0x8e, TestGuest::kCode64, 1);
  cpu().deliver_external(kNmi);
  EXPECT_EQ(s().rip, kHandler + kSsFault);
  EXPECT_EQ(stack(0), 1u);
}

// ---- IRET

class IretTest : public LongTest {
 protected:
  void frame(u64 rip, u64 cs, u64 flags, u64 rsp, u64 ss) {
    s().gpr[kRsp] = 0x7800;
    const u64 words[] = {rip, cs, flags, rsp, ss};
    for (unsigned i = 0; i < 5; ++i) guest.poke(0x7800 + 8 * i, words[i]);
  }
  std::optional<Fault> iret() {
    return guest.attempt([&] { cpu().iret(8); });
  }
};

TEST_F(IretTest, ToUserAndCompatibility) {
  for (const u16 cs : {TestGuest::kUserCode64, TestGuest::kUserCode32}) {
    guest.start();
    guest.segment(kCs, TestGuest::kCode64);
    guest.segment(kDs, TestGuest::kData);
    guest.segment(kEs, TestGuest::kUserData);
    frame(0x401000, cs, 0x246, 0x7fff0000, TestGuest::kUserData);
    ASSERT_FALSE(iret());
    EXPECT_EQ(s().rip, 0x401000u);
    EXPECT_EQ(s().cpl, 3);
    EXPECT_EQ(s().gpr[kRsp], 0x7fff0000u);
    EXPECT_EQ(s().rflags, 0x246u);
    EXPECT_EQ(s().tlb_space, TlbSpace::kUser);
    EXPECT_EQ(cpu().code_size(), cs == TestGuest::kUserCode64 ? CodeSize::k64 : CodeSize::k32);
    EXPECT_TRUE(s().seg[kDs].unusable());  // ring 0's data must not stay
    EXPECT_EQ(s().seg[kEs].selector, TestGuest::kUserData);
  }
}

TEST_F(IretTest, SameRingWithNullStack) {
  frame(0x401000, TestGuest::kCode64, 0x2, 0x7000, 0);
  ASSERT_FALSE(iret());
  EXPECT_EQ(s().gpr[kRsp], 0x7000u);
  EXPECT_TRUE(s().seg[kSs].unusable());
}

// A return to the segments that are loaded needs no loading, as long as their descriptors are what they were.
TEST_F(IretTest, InPlace) {
  const auto again = [&] {
    frame(0x401000, TestGuest::kCode64, 0x202, 0x7000, TestGuest::kData);
    return iret();
  };
  ASSERT_FALSE(again());  // what it needs of memory is at hand from here on
  const Segment cs = s().seg[kCs], ss = s().seg[kSs];
  for (const u64 flags : {u64{0x2}, u64{0x246}, kId | 0xcd7}) {
    frame(0x402000, TestGuest::kCode64, flags, 0x6ff8, TestGuest::kData);
    ASSERT_FALSE(iret());
    EXPECT_EQ(s().rip, 0x402000u);
    EXPECT_EQ(s().gpr[kRsp], 0x6ff8u);
    EXPECT_EQ(s().rflags, flags | 2);
    EXPECT_EQ(std::memcmp(&s().seg[kCs], &cs, sizeof cs), 0);
    EXPECT_EQ(std::memcmp(&s().seg[kSs], &ss, sizeof ss), 0);
  }
  frame(0x1234500000000000, TestGuest::kCode64, 0x202, 0x7000, TestGuest::kData);
  EXPECT_EQ(iret()->vector, kGp);

  guest.set_gdt(TestGuest::kData, TestGuest::descriptor(0x12, 0xc));  // not present
  EXPECT_EQ(again()->vector, kSsFault);
  guest.set_gdt(TestGuest::kData, TestGuest::descriptor(0x90, 0xc));  // read-only
  EXPECT_EQ(again()->vector, kGp);
  guest.set_gdt(TestGuest::kData, TestGuest::descriptor(0x92, 0x4));  // counts bytes: a new limit
  ASSERT_FALSE(again());
  EXPECT_EQ(s().seg[kSs].limit, 0xfffffu);
  guest.set_gdt(TestGuest::kCode64, TestGuest::descriptor(0x1a, 0xa));
  EXPECT_EQ(again()->vector, kNp);
  s().gdtr.limit = TestGuest::kCode64;
  EXPECT_EQ(again()->vector, kGp);
  EXPECT_EQ(s().gpr[kRsp], 0x7800u);
}

TEST_F(IretTest, NmisComeBack) {
  s().nmi_blocked = true;
  s().pending = kPendingNmi;
  EXPECT_EQ(cpu().take_pending_event(), std::nullopt);
  EXPECT_EQ(s().pending, 0u);
  frame(0x401000, TestGuest::kCode64, 0x2, 0x7000, TestGuest::kData);
  ASSERT_FALSE(iret());
  EXPECT_FALSE(s().nmi_blocked);
  EXPECT_EQ(s().pending, u32{kPendingNmi});
  EXPECT_EQ(cpu().take_pending_event(), StepResult::kBranch);
  EXPECT_TRUE(s().nmi_blocked);
}

TEST_F(IretTest, UserCannotRaiseIoplOrIf) {
  guest.to_user();
  frame(0x401000, TestGuest::kUserCode64, 0x3302, 0x7000, TestGuest::kUserData);
  ASSERT_FALSE(iret());
  EXPECT_EQ(s().rflags & (kIopl | kIf), 0u);
  EXPECT_NE(s().rflags & kTf, 0u);
  EXPECT_TRUE(cpu().debug_active());
}

TEST_F(IretTest, Refusals) {
  struct Row {
    u64 rip;
    u16 cs, ss;
    u8 vector;
    u32 error;
  };
  guest.set_gdt(TestGuest::kFree, TestGuest::descriptor(0x7a, 0xa));       // user code, not present
  guest.set_gdt(TestGuest::kFree + 8, TestGuest::descriptor(0x72, 0xc));   // user data, not present
  guest.set_gdt(TestGuest::kFree + 16, TestGuest::descriptor(0xf0, 0xc));  // read-only
  const u16 user = TestGuest::kUserCode64, data = TestGuest::kUserData;
  const Row rows[] = {{0x1000, 0, data, kGp, 0},
                      {0x1000, 0x200 | 3, data, kGp, 0x200},
                      {0x1000, data, data, kGp, data & ~3u},
                      {0x1000, user & ~3u, data, kGp, user & ~3u},  // RPL 0, DPL 3
                      {0x1000, TestGuest::kFree | 3, data, kNp, TestGuest::kFree},
                      {0x1000, user, 0, kGp, 0},
                      {0x1000, user, 3, kGp, 0},
                      {0x1000, user, TestGuest::kData | 3, kGp, TestGuest::kData},
                      {0x1000, user, data & ~3u, kGp, data & ~3u},
                      {0x1000, user, TestGuest::kFree + 8 + 3, kSsFault, TestGuest::kFree + 8},
                      {0x1000, user, TestGuest::kFree + 16 + 3, kGp, TestGuest::kFree + 16},
                      {0x1234500000000000, user, data, kGp, 0},
                      {0x123456789, TestGuest::kUserCode32, data, kGp, 0}};
  for (const Row& row : rows) {
    SCOPED_TRACE(&row - rows);
    frame(row.rip, row.cs, 0x202, 0x7000, row.ss);
    const auto fault = iret();
    ASSERT_TRUE(fault);
    EXPECT_EQ(fault->vector, row.vector);
    EXPECT_EQ(fault->error, row.error);
    EXPECT_EQ(s().gpr[kRsp], 0x7800u);
    EXPECT_EQ(s().rip, 0x7000u);
    EXPECT_EQ(s().cpl, 0);
  }
  s().rflags |= kNt;
  frame(0x1000, user, 0x202, 0x7000, data);
  EXPECT_EQ(iret()->vector, kGp);
}

// ---- other modes

TEST(RealModeTest, InterruptAndIret) {
  TestGuest guest;
  CpuState& s = guest.s();
  guest.poke(0x21 * 4, 0x12340056, 4);
  s.seg[kSs].base = 0x8000;
  s.seg[kSs].selector = 0x800;
  s.gpr[kRsp] = 0xffff0000;  // SP wraps
  s.rflags = 0x202 | kTf | kAc;
  guest.cpu().set_real_mode_segment(kCs, 0x100);
  s.rip = 0x55;
  guest.cpu().mode_changed();
  EXPECT_FALSE(guest.attempt([&] { guest.cpu().deliver_software_interrupt(0x21, 0x57, false, false); }));
  EXPECT_EQ(s.rip, 0x56u);
  EXPECT_EQ(s.seg[kCs].base, 0x12340u);
  EXPECT_EQ(s.gpr[kRsp], 0xfffffffau);
  EXPECT_EQ(s.rflags, 2u);
  EXPECT_EQ(guest.peek(0x8000 + 0xfffa, 2), 0x57u);
  EXPECT_EQ(guest.peek(0x8000 + 0xfffc, 2), 0x100u);
  EXPECT_FALSE(guest.attempt([&] { guest.cpu().iret(2); }));
  EXPECT_EQ(s.rip, 0x57u);
  EXPECT_EQ(s.gpr[kRsp], 0xffff0000u);
  EXPECT_EQ(s.rflags & 0xffff, 0x202 | kTf);
}

class ProtectedTest : public testing::Test {
 protected:
  ProtectedTest() {
    guest.protected_mode();
    for (unsigned vector = 0; vector < 32; ++vector) guest.gate32(vector, kHandler + vector);
  }
  CpuState& s() { return guest.s(); }
  u64 stack(unsigned word) { return guest.peek(s().gpr[kRsp] + 4 * word, 4); }
  TestGuest guest;
};

TEST_F(ProtectedTest, SameRing) {
  guest.cpu().deliver({kGp, true, 0x18, 0});
  EXPECT_EQ(s().rip, kHandler + kGp);
  EXPECT_EQ(s().gpr[kRsp], TestGuest::kStack - 0x800 - 16);
  EXPECT_EQ(stack(0), 0x18u);
  EXPECT_EQ(stack(1), 0x7000u);
  EXPECT_EQ(stack(2), TestGuest::kCode32);
}

TEST_F(ProtectedTest, InnerRingAndBack) {
  guest.to_user(false);
  s().gpr[kRsp] = 0x6000;
  s().rflags = 0x202;
  guest.gate32(0x20, 0x4567, 0xee);
  EXPECT_FALSE(guest.attempt([&] { guest.cpu().deliver_software_interrupt(0x20, 0x7002, false, false); }));
  EXPECT_EQ(s().cpl, 0);
  EXPECT_EQ(s().gpr[kRsp], TestGuest::kStack - 20);
  EXPECT_EQ(stack(3), 0x6000u);
  EXPECT_EQ(stack(4), TestGuest::kUserData);
  EXPECT_FALSE(guest.attempt([&] { guest.cpu().iret(4); }));
  EXPECT_EQ(s().cpl, 3);
  EXPECT_EQ(s().gpr[kRsp], 0x6000u);
  EXPECT_EQ(s().rip, 0x7002u);
}

TEST_F(ProtectedTest, SixteenBitGate) {
  guest.gate32(0x20, 0x54567, 0x86);
  guest.cpu().deliver_external(0x20);
  EXPECT_EQ(s().rip, 0x4567u);
  EXPECT_EQ(s().gpr[kRsp], TestGuest::kStack - 0x800 - 6);
}

TEST_F(ProtectedTest, BadInnerStacks) {
  struct Row {
    u16 ss;
    u8 vector;
    u32 error;
  };
  guest.set_gdt(TestGuest::kFree, TestGuest::descriptor(0x12, 0xc));      // not present
  guest.set_gdt(TestGuest::kFree + 8, TestGuest::descriptor(0x90, 0xc));  // read-only
  for (const Row& row : {Row{0, kTs, 1}, Row{TestGuest::kData | 3, kTs, TestGuest::kData | 1u}, Row{0x200, kTs, 0x201},
                         Row{TestGuest::kUserData, kTs, (TestGuest::kUserData & ~3u) | 1},
                         Row{TestGuest::kFree, kSsFault, TestGuest::kFree | 1u},
                         Row{TestGuest::kFree + 8, kTs, (TestGuest::kFree + 8) | 1u}}) {
    guest.start();
    guest.to_user(false);
    guest.poke(TestGuest::kTss + 8, row.ss, 2);
    // The first fault's handler stays in ring 3, so that it can be seen.
    guest.gate32(row.vector, kHandler, 0xee, TestGuest::kUserCode32);
    guest.cpu().deliver_external(0x10);
    EXPECT_EQ(s().rip, kHandler);
    EXPECT_EQ(stack(0), row.error) << row.ss;
  }
}

TEST_F(ProtectedTest, Virtual8086AndBack) {
  // IRET from ring 0 with VM set.
  s().gpr[kRsp] = 0x6000;
  const u32 words[] = {0x10, 0x300, 0x20202 | 3u << 12, 0xfffe, 0x400, 0x500, 0x600, 0x700, 0x800};
  for (unsigned i = 0; i < 9; ++i) guest.poke(0x6000 + 4 * i, words[i], 4);
  EXPECT_FALSE(guest.attempt([&] { guest.cpu().iret(4); }));
  EXPECT_TRUE(guest.cpu().v8086());
  EXPECT_EQ(s().cpl, 3);
  EXPECT_EQ(s().seg[kCs].base, 0x3000u);
  EXPECT_EQ(s().seg[kGs].selector, 0x800);
  EXPECT_EQ(guest.cpu().code_size(), CodeSize::k16);
  EXPECT_EQ(guest.cpu().linear(kDs, 0x1234, 2, Access::kWrite), 0x7234u - 0x0);
  // An exception leaves it for ring 0 with all segments saved.
  guest.cpu().deliver({kGp, true, 0, 0});
  EXPECT_FALSE(guest.cpu().v8086());
  EXPECT_EQ(s().cpl, 0);
  EXPECT_EQ(s().gpr[kRsp], TestGuest::kStack - 40);
  EXPECT_EQ(stack(1), 0x10u);
  EXPECT_EQ(stack(4), 0xfffeu);
  EXPECT_EQ(stack(6), 0x500u);
  EXPECT_EQ(stack(9), 0x800u);
  EXPECT_TRUE(s().seg[kDs].unusable());
}

TEST_F(ProtectedTest, Virtual8086InterruptNeedsIopl) {
  s().rflags |= kVm;
  s().cpl = 3;
  EXPECT_EQ(guest.attempt([&] { guest.cpu().deliver_software_interrupt(0x10, 2, false, false); })->vector, kGp);
  EXPECT_EQ(guest.attempt([&] { guest.cpu().iret(2); })->vector, kGp);
}

// ---- tasks

class TaskTest : public ProtectedTest {
 protected:
  TaskTest() {
    const u64 tss = TestGuest::kTss2;
    guest.poke(tss + 0x20, 0x9000, 4);  // EIP
    guest.poke(tss + 0x24, 0x2, 4);     // EFLAGS
    guest.poke(tss + 0x28, 0xaa, 4);    // EAX
    guest.poke(tss + 0x38, 0x5800, 4);  // ESP
    for (const unsigned at : {0x48u, 0x50u, 0x54u}) guest.poke(tss + at, TestGuest::kData, 4);
    guest.poke(tss + 0x4c, TestGuest::kCode32, 4);
    guest.poke(0x7000, 0x90, 1);  // the instruction being executed, for its length
  }
  unsigned type(u16 selector) { return guest.peek(TestGuest::kGdt + selector + 5, 1) & 0xf; }
};

TEST_F(TaskTest, JumpAndGateAndIret) {
  s().gpr[kRax] = 0x11;
  ASSERT_FALSE(guest.attempt([&] { guest.cpu().far_jump(TestGuest::kTss2Selector, 0, 4); }));
  EXPECT_EQ(s().rip, 0x9000u);
  EXPECT_EQ(s().gpr[kRax], 0xaau);
  EXPECT_EQ(s().tr.selector, TestGuest::kTss2Selector);
  EXPECT_EQ(type(TestGuest::kTssSelector), kTss32);
  EXPECT_EQ(type(TestGuest::kTss2Selector), kTss32Busy);
  EXPECT_EQ(guest.peek(TestGuest::kTss + 0x28, 4), 0x11u);
  EXPECT_EQ(guest.peek(TestGuest::kTss + 0x20, 4), 0x7001u);
  EXPECT_NE(s().cr0 & kCr0Ts, 0u);

  // The other way through an interrupt's task gate, and back by IRET.
  guest.poke(TestGuest::kIdt + 8 * kDf8, u64{TestGuest::kTssSelector} << 16 | u64{0x85} << 40);
  s().rip = 0x9100;
  guest.poke(0x7001, 0xcf, 1);
  guest.cpu().deliver({kDf8, true, 0, 0});
  EXPECT_EQ(s().rip, 0x7001u);
  EXPECT_NE(s().rflags & kNt, 0u);
  EXPECT_EQ(stack(0), 0u);  // error code
  ASSERT_FALSE(guest.attempt([&] { guest.cpu().iret(4); }));
  EXPECT_EQ(s().rip, 0x9100u);
  EXPECT_EQ(s().rflags & kNt, 0u);
  EXPECT_EQ(type(TestGuest::kTssSelector), kTss32);
}

TEST_F(TaskTest, Refusals) {
  EXPECT_EQ(guest.attempt([&] { guest.cpu().far_jump(TestGuest::kTssSelector, 0, 4); })->vector, kGp);  // busy
  guest.set_gdt(TestGuest::kFree, TestGuest::descriptor(0x89, 0, TestGuest::kTss2, 0x50));
  auto fault = guest.attempt([&] { guest.cpu().far_jump(TestGuest::kFree, 0, 4); });
  EXPECT_EQ(fault->vector, kTs);
  EXPECT_EQ(fault->error, TestGuest::kFree);
  s().rflags |= kNt;
  guest.poke(TestGuest::kTss, TestGuest::kTss2Selector, 2);
  EXPECT_EQ(guest.attempt([&] { guest.cpu().iret(4); })->vector, kTs);  // not busy
  // A task whose stack segment is bad faults in the new task.
  s().rflags &= ~kNt;
  guest.poke(TestGuest::kTss2 + 0x50, TestGuest::kUserData, 4);
  fault = guest.attempt([&] { guest.cpu().far_jump(TestGuest::kTss2Selector, 0, 4); });
  EXPECT_EQ(fault->vector, kTs);
  EXPECT_EQ(s().rip, 0x9000u);
}

TEST_F(LongTest, ThereAreNoTaskSwitches) {
  EXPECT_EQ(guest.attempt([&] { cpu().far_jump(TestGuest::kTss2Selector, 0, 8); })->vector, kGp);
}

}  // namespace
}  // namespace bulkhead::engine::dbt
