#include <gtest/gtest.h>

#include "engine/dbt/cpu/msr.h"
#include "engine/dbt/cpu/test_guest.h"

namespace bulkhead::engine::dbt {
namespace {

using G = TestGuest;

class ControlTest : public testing::Test {
 protected:
  Cpu& cpu() { return guest.cpu(); }
  CpuState& s() { return guest.s(); }
  bool refused(unsigned cr, u64 value) {
    const u64 before[] = {s().cr0, s().cr3, s().cr4, s().efer};
    const auto fault = guest.attempt([&] { cpu().write_cr(cr, value); });
    if (!fault) return false;
    EXPECT_EQ(fault->vector, kGp);
    const u64 after[] = {s().cr0, s().cr3, s().cr4, s().efer};
    for (unsigned i = 0; i < 4; ++i) EXPECT_EQ(before[i], after[i]);
    return true;
  }
  bool msr_refused(u32 msr, u64 value) {
    const auto fault = guest.attempt([&] { cpu().write_msr(msr, value); });
    return fault && fault->vector == kGp;
  }
  u64 msr(u32 number) {
    u64 value = 0;
    EXPECT_FALSE(guest.attempt([&] { value = cpu().read_msr(number); })) << std::hex << number;
    return value;
  }
  TestGuest guest;
};

TEST_F(ControlTest, Cr0) {
  guest.protected_mode();
  EXPECT_TRUE(refused(0, 0x80000000));  // PG without PE
  EXPECT_TRUE(refused(0, 0x20000001));  // NW without CD
  EXPECT_TRUE(refused(0, u64{1} << 32 | 0x31));
  EXPECT_FALSE(refused(0, 0x1fffffff & 0x1ff8ffc1));  // undefined bits are dropped
  EXPECT_EQ(s().cr0, 0x11u);
  EXPECT_FALSE(refused(0, 0x10));
  EXPECT_FALSE(cpu().protected_mode());
}

TEST_F(ControlTest, IntoLongModeAndOut) {
  guest.protected_mode();
  s().cr3 = G::kTables;
  guest.map(0, 0xe7, 2);
  EXPECT_FALSE(msr_refused(kMsrEfer, kEferLme));
  EXPECT_TRUE(refused(0, 0x80000031));  // no PAE
  EXPECT_FALSE(refused(4, kCr4Pae));
  guest.segment(kCs, G::kCode64);
  EXPECT_TRUE(refused(0, 0x80000031));  // CS.L
  guest.segment(kCs, G::kCode32);
  s().tr.attributes = 0x83;
  EXPECT_TRUE(refused(0, 0x80000031));  // a 16-bit TSS
  s().tr.attributes = 0x8b;
  EXPECT_FALSE(refused(0, 0x80000031));
  EXPECT_TRUE(cpu().long_mode());
  EXPECT_EQ(cpu().code_size(), CodeSize::k32);
  EXPECT_TRUE(refused(4, 0));             // PAE must stay
  EXPECT_TRUE(msr_refused(kMsrEfer, 0));  // LME must stay
  EXPECT_FALSE(guest.attempt([&] { cpu().far_jump(G::kCode64, 0x7000, 4); }));
  EXPECT_EQ(cpu().code_size(), CodeSize::k64);
  EXPECT_TRUE(refused(0, 0x31));  // not from 64-bit code
  EXPECT_FALSE(guest.attempt([&] { cpu().far_jump(G::kCode32, 0x7000, 4); }));
  EXPECT_FALSE(refused(0, 0x31));
  EXPECT_FALSE(cpu().long_mode());
  EXPECT_EQ(s().efer, kEferLme);
}

TEST_F(ControlTest, Cr3AndCr4) {
  guest.long_mode();
  EXPECT_TRUE(refused(3, u64{1} << 40));
  EXPECT_TRUE(refused(3, u64{1} << 63 | G::kTables));
  EXPECT_TRUE(refused(4, s().cr4 | 1u << 12));  // LA57
  EXPECT_TRUE(refused(4, s().cr4 | 1u << 13));  // VMXE
  EXPECT_TRUE(refused(4, s().cr4 | u64{1} << 40));
  s().cr3 = G::kTables | 0x18;
  EXPECT_TRUE(refused(4, s().cr4 | kCr4Pcide));
  s().cr3 = G::kTables;
  EXPECT_FALSE(refused(4, s().cr4 | kCr4Pcide));
  EXPECT_FALSE(refused(3, u64{1} << 63 | G::kTables | 5));
  EXPECT_EQ(s().cr3, G::kTables | 5);
  EXPECT_EQ(guest.attempt([&] { cpu().write_cr(5, 0); })->vector, kUd);
  EXPECT_EQ(guest.attempt([&] { cpu().read_cr(1); })->vector, kUd);
  EXPECT_TRUE(refused(8, 16));
  EXPECT_FALSE(refused(8, 15));
  EXPECT_EQ(cpu().read_cr(8), 15u);
}

TEST_F(ControlTest, PcideNeedsLongMode) {
  guest.protected_mode();
  EXPECT_TRUE(refused(4, kCr4Pcide));
}

TEST_F(ControlTest, Xcr0) {
  const auto bad = [&](u64 value) { return guest.attempt([&] { cpu().write_xcr0(value); }).has_value(); };
  for (const u64 value : {0u, 2u, 5u, 0xe7u, 0x200u}) EXPECT_TRUE(bad(value)) << value;
  for (const u64 value : {1u, 3u, 7u}) EXPECT_FALSE(bad(value)) << value;
}

// ---- MSRs

TEST_F(ControlTest, MsrsKeepWhatTheyHold) {
  guest.long_mode();
  for (const u32 number : {kMsrStar, kMsrLstar, kMsrCstar, kMsrSfmask, kMsrFsBase, kMsrGsBase, kMsrKernelGsBase,
                           kMsrTscAux, kMsrSysenterCs, kMsrSysenterEsp, kMsrSysenterEip, kMsrMtrrPhysBase0 + 2}) {
    EXPECT_FALSE(msr_refused(number, 0x12345000)) << std::hex << number;
    EXPECT_EQ(msr(number), 0x12345000u) << std::hex << number;
  }
  EXPECT_EQ(s().seg[kGs].base, 0x12345000u);
  EXPECT_EQ(msr(kMsrMtrrCap), 0x508u);
  EXPECT_EQ(msr(kMsrMcgCap), 0u);
}

TEST_F(ControlTest, MsrsRefuseWhatTheyCannotHold) {
  guest.long_mode();
  for (const u32 number :
       {kMsrLstar, kMsrCstar, kMsrFsBase, kMsrGsBase, kMsrKernelGsBase, kMsrSysenterEsp, kMsrSysenterEip})
    EXPECT_TRUE(msr_refused(number, 0x800000000000)) << std::hex << number;
  EXPECT_TRUE(msr_refused(kMsrEfer, s().efer | u64{1} << 12));  // SVME
  EXPECT_TRUE(msr_refused(kMsrEfer, s().efer | u64{1} << 40));
  EXPECT_TRUE(msr_refused(kMsrPat, 0x02));
  EXPECT_TRUE(msr_refused(kMsrMtrrDefType, 0x100));
  EXPECT_TRUE(msr_refused(kMsrMtrrDefType, 2));
  EXPECT_TRUE(msr_refused(kMsrMtrrFix64K, 0x0202));
  EXPECT_TRUE(msr_refused(kMsrMtrrPhysBase0, u64{1} << 45));
  EXPECT_TRUE(msr_refused(kMsrMtrrCap, 0));
  EXPECT_TRUE(msr_refused(kMsrSpecCtrl, 8));
  EXPECT_TRUE(msr_refused(kMsrPredCmd, 2));
  EXPECT_FALSE(msr_refused(kMsrPredCmd, 1));
  EXPECT_TRUE(msr_refused(kMsrTscAux, u64{1} << 32));
  EXPECT_TRUE(msr_refused(kMsrXss, 1));
  EXPECT_TRUE(msr_refused(kMsrArchCapabilities, 0));
}

TEST_F(ControlTest, EveryMsrGetsAnAnswer) {
  guest.long_mode();
  const auto probe = [&](u32 number) {
    const auto read = guest.attempt([&] { cpu().read_msr(number); });
    EXPECT_TRUE(!read || read->vector == kGp || read->vector == 0xff);
    if (number == kMsrEfer || (number >= 0x800 && number < 0x900) || number == kMsrApicBase) return;
    const auto write = guest.attempt([&] { cpu().write_msr(number, ~u64{0}); });
    EXPECT_TRUE(!write || write->vector == kGp || write->vector == 0xff);
  };
  for (u32 number = 0; number < 0x2000; ++number) {
    probe(number);
    probe(0xc0000000 + number);
    probe(0xc0010000 + number);
    probe(0x40000000 + number);
  }
}

TEST_F(ControlTest, UnknownMsrIsTheMachinesToAnswer) {
  const auto read = [&] { return guest.attempt([&] { s().gpr[kRax] = cpu().read_msr(0x4b564d01); }); };
  EXPECT_EQ(read()->vector, 0xff);
  auto& exit = std::get<MsrExit>(cpu().exit);
  EXPECT_EQ(exit.index, 0x4b564d01u);
  exit.value = 77;
  exit.fault = false;
  cpu().take_answer();
  EXPECT_FALSE(read());
  EXPECT_EQ(s().gpr[kRax], 77u);
  cpu().instruction_done();
  EXPECT_EQ(read()->vector, 0xff);
  cpu().take_answer();  // the default is a fault
  EXPECT_EQ(read()->vector, kGp);
}

TEST_F(ControlTest, TimeStampCounter) {
  EXPECT_FALSE(msr_refused(kMsrTsc, 0x1000000000000));
  EXPECT_GE(cpu().read_tsc(), 0x1000000000000u);
  EXPECT_LT(cpu().read_tsc(), 0x1001000000000u);
  const u64 adjust = msr(kMsrTscAdjust);
  EXPECT_FALSE(msr_refused(kMsrTscAdjust, adjust + 0x1000000000000));
  EXPECT_GE(cpu().read_tsc(), 0x2000000000000u);
}

TEST(ControlAmdTest, ItsOwnMsrs) {
  TestGuest amd{true}, intel;
  EXPECT_FALSE(amd.attempt([&] { amd.cpu().read_msr(kMsrHwcr); }));
  EXPECT_FALSE(amd.attempt([&] { amd.cpu().write_msr(kMsrDeCfg, 2); }));
  EXPECT_EQ(amd.cpu().read_msr(kMsrDeCfg), 2u);
  EXPECT_EQ(intel.attempt([&] { intel.cpu().read_msr(kMsrHwcr); })->vector, 0xff);
}

// ---- SYSCALL and its relatives

class SyscallTest : public ControlTest {
 protected:
  SyscallTest() {
    guest.long_mode();
    s().star = u64{0x23} << 48 | u64{G::kCode64} << 32;
    s().lstar = 0xffffffff81000000;
    s().sfmask = kTf | kIf | kDf | kAc;
  }
};

TEST_F(SyscallTest, ThereAndBack) {
  guest.to_user();
  s().rflags = 0x202 | kDf | kRf;
  cpu().syscall(0x401002);
  EXPECT_EQ(s().rip, s().lstar);
  EXPECT_EQ(s().gpr[kRcx], 0x401002u);
  EXPECT_EQ(s().gpr[kR11], 0x202u | kDf);
  EXPECT_EQ(s().rflags, 2u);
  EXPECT_EQ(s().cpl, 0);
  EXPECT_EQ(s().seg[kSs].selector, G::kData);
  cpu().sysret(8);
  EXPECT_EQ(s().rip, 0x401002u);
  EXPECT_EQ(s().cpl, 3);
  EXPECT_EQ(s().seg[kCs].selector, G::kUserCode64);
  EXPECT_EQ(s().seg[kSs].selector, G::kUserData);
  EXPECT_EQ(s().rflags, 0x202u | kDf);
  EXPECT_EQ(cpu().code_size(), CodeSize::k64);
}

TEST_F(SyscallTest, Refusals) {
  s().gpr[kRcx] = 0x800000000000;
  EXPECT_EQ(guest.attempt([&] { cpu().sysret(8); })->vector, kGp);
  guest.to_user();
  EXPECT_EQ(guest.attempt([&] { cpu().sysret(8); })->vector, kGp);
  EXPECT_EQ(guest.attempt([&] { cpu().sysexit(8); })->vector, kGp);
  EXPECT_EQ(guest.attempt([&] { cpu().sysenter(); })->vector, kGp);  // CS is null
  guest.to_user(false);
  EXPECT_EQ(guest.attempt([&] { cpu().syscall(0); })->vector, kUd);  // Intel's, in compatibility mode
  guest.to_user();
  s().efer &= ~kEferSce;
  EXPECT_EQ(guest.attempt([&] { cpu().syscall(0); })->vector, kUd);
}

TEST_F(SyscallTest, Sysenter) {
  s().sysenter_cs = G::kCode64;
  s().sysenter_esp = 0xffff888000001000;
  s().sysenter_eip = 0xffffffff82000000;
  guest.to_user(false);
  cpu().sysenter();
  EXPECT_EQ(s().rip, s().sysenter_eip);
  EXPECT_EQ(s().gpr[kRsp], s().sysenter_esp);
  EXPECT_EQ(cpu().code_size(), CodeSize::k64);
  s().gpr[kRdx] = 0x401000;
  s().gpr[kRcx] = 0x7000;
  cpu().sysexit(4);
  EXPECT_EQ(cpu().code_size(), CodeSize::k32);
  EXPECT_EQ(s().cpl, 3);
  EXPECT_EQ(s().rip, 0x401000u);
}

TEST_F(SyscallTest, SingleStepGoesByTheFlagsAfterwards) {
  guest.to_user();
  cpu().write_rflags(kTf, kTf);
  EXPECT_TRUE(cpu().debug_active());
  cpu().check_instruction_breakpoint();
  cpu().syscall(0x401002);
  EXPECT_FALSE(cpu().debug_trap_after(true));
  cpu().sysret(8);
  const auto trap = cpu().debug_trap_after(false);
  ASSERT_TRUE(trap);
  EXPECT_EQ(trap->address, 1u << 14);
}

}  // namespace
}  // namespace bulkhead::engine::dbt
