#include <gtest/gtest.h>

#include "engine/dbt/cpu/test_guest.h"

namespace bulkhead::engine::dbt {
namespace {

using G = TestGuest;

// ---- ports

class PortTest : public testing::Test {
 protected:
  PortTest() {
    guest.long_mode();
    guest.poke(G::kTss + 102, 104, 2);
    for (u64 i = 0; i < 0x400; i += 8) guest.poke(G::kTss + 104 + i, ~u64{0});
  }
  int in(u16 port, unsigned size) {
    const auto fault = guest.attempt([&] { guest.cpu().port_in(port, size); });
    guest.cpu().instruction_done();
    return fault ? fault->vector : -1;
  }
  TestGuest guest;
};

TEST_F(PortTest, ExitThenAnswer) {
  EXPECT_EQ(in(0x3f8, 1), 0xff);
  std::get<PortExit>(guest.cpu().exit).value = 0x1ff;
  guest.cpu().take_answer();
  EXPECT_EQ(guest.cpu().port_in(0x3f8, 1), 0xffu);
  guest.cpu().instruction_done();
  EXPECT_TRUE(guest.attempt([&] { guest.cpu().port_out(0x80, 2, 0x12345); }));
  const auto& exit = std::get<PortExit>(guest.cpu().exit);
  EXPECT_TRUE(exit.write);
  EXPECT_EQ(exit.value, 0x2345u);
}

TEST_F(PortTest, Bitmap) {
  guest.to_user();
  EXPECT_EQ(in(0x60, 1), kGp);
  guest.poke(G::kTss + 104 + 12, 0xfe, 1);
  EXPECT_EQ(in(0x60, 1), 0xff);
  EXPECT_EQ(in(0x60, 2), kGp);
  EXPECT_EQ(in(0x5f, 2), kGp);
  guest.s().rflags |= kIopl;
  EXPECT_EQ(in(0x61, 4), 0xff);
  guest.s().rflags &= ~kIopl;
  guest.s().tr.limit = 104 + 12;  // the byte behind must be there too
  EXPECT_EQ(in(0x60, 1), kGp);
  guest.s().tr.limit = 102;
  EXPECT_EQ(in(0x60, 1), kGp);
  guest.s().tr.limit = 0xfff;
  guest.poke(G::kTss + 102, 0xffff, 2);
  EXPECT_EQ(in(0x60, 1), kGp);
}

// ---- debug registers

class DebugTest : public testing::Test {
 protected:
  DebugTest() { guest.long_mode(); }
  Cpu& cpu() { return guest.cpu(); }
  TestGuest guest;
};

TEST_F(DebugTest, Registers) {
  cpu().write_dr(7, 0xffffffff);
  EXPECT_EQ(guest.s().dr[7], 0xffff27ffu);
  EXPECT_EQ(guest.attempt([&] { cpu().read_dr(0); })->vector, kDb);  // GD
  EXPECT_EQ(cpu().fault.address, 1u << 13);
  guest.s().dr[7] = 0x400;
  cpu().write_dr(6, 0);
  EXPECT_EQ(cpu().read_dr(4), 0xffff0ff0u);
  guest.s().cr4 |= kCr4De;
  EXPECT_EQ(guest.attempt([&] { cpu().read_dr(4); })->vector, kUd);
  EXPECT_EQ(guest.attempt([&] { cpu().write_dr(7, u64{1} << 32); })->vector, kGp);
}

TEST_F(DebugTest, DataBreakpoints) {
  cpu().tlb_fill(0x5000, 8, Access::kWrite);
  cpu().write_dr(1, 0x5008);
  cpu().write_dr(7, 1u << 2 | 1u << 20 | 3u << 22);  // write, 4 bytes
  EXPECT_TRUE(cpu().debug_active());
  EXPECT_EQ(cpu().tlb_fill(0x5000, 8, Access::kRead), nullptr);
  EXPECT_EQ(guest.s().tlb[1][5].read_tag, kNoTag);
  struct Row {
    u64 at;
    unsigned size;
    bool write, hit;
  };
  for (const Row& row : {Row{0x5008, 4, true, true}, Row{0x5008, 4, false, false}, Row{0x500b, 1, true, true},
                         Row{0x5000, 8, true, false}, Row{0x5001, 8, true, true}, Row{0x500c, 4, true, false}}) {
    if (row.write) {
      cpu().store(row.at, row.size, 0);
    } else {
      cpu().load(row.at, row.size);
    }
    const auto trap = cpu().debug_trap_after(false);
    EXPECT_EQ(trap.has_value(), row.hit) << std::hex << row.at;
    EXPECT_EQ(trap ? trap->address : 2, 2u);
  }
  cpu().write_dr(7, 0);
  EXPECT_FALSE(cpu().debug_active());
  EXPECT_NE(cpu().tlb_fill(0x5000, 8, Access::kRead), nullptr);
}

TEST_F(DebugTest, InstructionBreakpointsAndRf) {
  cpu().write_dr(0, 0x7000);
  cpu().write_dr(7, 1);
  EXPECT_EQ(guest.attempt([&] { cpu().check_instruction_breakpoint(); })->address, 1u);
  guest.s().rflags |= kRf;
  EXPECT_FALSE(guest.attempt([&] { cpu().check_instruction_breakpoint(); }));
  EXPECT_FALSE(cpu().debug_trap_after(false));
  EXPECT_EQ(guest.s().rflags & kRf, 0u);
}

// ---- events

class EventTest : public testing::Test {
 protected:
  EventTest() : guest{false, 2} {
    guest.long_mode();
    for (unsigned vector = 0; vector < 64; ++vector) guest.gate64(vector, 0x9000 + vector);
    guest.cpu().lapic->mmio_write(0xf0, 0x1ff);
  }
  Cpu& cpu() { return guest.cpu(); }
  CpuState& s() { return guest.s(); }
  void interrupt(u8 vector) { guest.shared.deliver_msi({0xfee00000, vector}); }
  TestGuest guest;
};

TEST_F(EventTest, InterruptWaitsForIf) {
  interrupt(0x31);
  EXPECT_TRUE(s().pending & kPendingInterrupt);
  EXPECT_EQ(cpu().take_pending_event(), std::nullopt);
  EXPECT_EQ(s().pending, 0u);
  cpu().write_rflags(kIf, kIf);
  EXPECT_TRUE(s().pending & kPendingInterrupt);
  s().interrupt_shadow = true;
  EXPECT_EQ(cpu().take_pending_event(), std::nullopt);
  EXPECT_TRUE(s().pending & kPendingInterrupt);
  s().interrupt_shadow = false;
  EXPECT_EQ(cpu().take_pending_event(), StepResult::kBranch);
  EXPECT_EQ(s().rip, 0x9031u);
  EXPECT_EQ(cpu().take_pending_event(), std::nullopt);
}

TEST_F(EventTest, PriorityHoldsInterruptsBack) {
  cpu().write_rflags(kIf, kIf);
  cpu().write_cr(8, 4);
  interrupt(0x31);
  EXPECT_EQ(cpu().take_pending_event(), std::nullopt);
  cpu().write_cr(8, 0);
  EXPECT_EQ(cpu().take_pending_event(), StepResult::kBranch);
}

TEST_F(EventTest, NmiComesFirstAndOnce) {
  cpu().write_rflags(kIf, kIf);
  interrupt(0x31);
  cpu().lapic->inject_nmi();
  EXPECT_EQ(cpu().take_pending_event(), StepResult::kBranch);
  EXPECT_EQ(s().rip, 0x9002u);
  cpu().lapic->inject_nmi();
  EXPECT_EQ(cpu().take_pending_event(), std::nullopt);  // IF is off in the handler, and NMIs are blocked
  EXPECT_EQ(s().pending & kPendingNmi, 0u);
}

TEST_F(EventTest, ApplicationProcessorStartsBySipi) {
  Cpu& ap = *guest.shared.cpus[1];
  EXPECT_TRUE(ap.lapic->waiting_for_sipi());
  EXPECT_EQ(ap.take_pending_event(), std::nullopt);
  cpu().lapic->mmio_write(0x310, 1u << 24);
  cpu().lapic->mmio_write(0x300, 0x4500);  // INIT
  EXPECT_EQ(ap.take_pending_event(), StepResult::kHalt);
  cpu().lapic->mmio_write(0x300, 0x4612);  // SIPI at 0x12000
  EXPECT_EQ(ap.take_pending_event(), StepResult::kBranch);
  EXPECT_EQ(ap.s.seg[kCs].base, 0x12000u);
  EXPECT_EQ(ap.s.seg[kCs].selector, 0x1200);
  EXPECT_EQ(ap.s.rip, 0u);
  EXPECT_FALSE(ap.s.halted);
  cpu().lapic->mmio_write(0x300, 0x4634);  // a second one finds it running
  EXPECT_EQ(ap.take_pending_event(), std::nullopt);
  EXPECT_EQ(ap.s.seg[kCs].base, 0x12000u);
}

TEST_F(EventTest, InitOfTheFirstProcessorEndsTheMachine) {
  s().pending |= kPendingInit;
  EXPECT_EQ(cpu().take_pending_event(), StepResult::kExit);
  EXPECT_EQ(std::get<ShutdownExit>(cpu().exit).reason, ShutdownReason::kInit);
}

TEST_F(EventTest, PowerOnState) {
  cpu().reset(false);
  EXPECT_EQ(s().rip, 0xfff0u);
  EXPECT_EQ(s().seg[kCs].base, 0xffff0000u);
  EXPECT_EQ(cpu().code_size(), CodeSize::k16);
  EXPECT_EQ(s().cr0, 0x60000010u);
  EXPECT_EQ(s().gpr[kRdx], 0x306c3u);
  EXPECT_EQ(s().cpl, 0);
}

TEST_F(EventTest, AllProcessorsHaveOneTime) { EXPECT_EQ(s().tsc_offset, guest.shared.cpus[1]->s.tsc_offset); }

}  // namespace
}  // namespace bulkhead::engine::dbt
