#include <gtest/gtest.h>

#include <thread>

#include "support/cpu_fixture.h"

namespace bulkhead::engine::dbt {
namespace {

class SystemTest : public testing::Test {
 protected:
  CpuFixture t_;
  void expect_fault(std::initializer_list<u8> code, unsigned vector) {
    const u64 rip = t_.s().rip;
    t_.run(code);
    EXPECT_EQ(t_.fault_vector(), vector) << "at " << std::hex << rip;
  }
};

TEST_F(SystemTest, PrivilegedInstructionsInUserModeAreGp) {
  const std::vector<std::vector<u8>> privileged = {
      {0xf4},              // hlt
      {0xfa},              // cli
      {0xfb},              // sti
      {0x0f, 0x06},        // clts
      {0x0f, 0x08},        // invd
      {0x0f, 0x09},        // wbinvd
      {0x0f, 0x01, 0x3b},  // invlpg
      {0x0f, 0x01, 0x13},  // lgdt
      {0x0f, 0x01, 0x1b},  // lidt
      {0x0f, 0x00, 0xd0},  // lldt
      {0x0f, 0x00, 0xd8},  // ltr
      {0x0f, 0x01, 0xf0},  // lmsw
      {0x0f, 0x20, 0xc0},  // mov rax, cr0
      {0x0f, 0x22, 0xc0},  // mov cr0, rax
      {0x0f, 0x21, 0xc0},  // mov rax, dr0
      {0x0f, 0x32},        // rdmsr
      {0x0f, 0x30},        // wrmsr
      {0x0f, 0x01, 0xf8},  // swapgs
      {0xec},              // in al, dx
      {0xee},              // out dx, al
      {0x0f, 0x33},        // rdpmc
      {0x0f, 0x01, 0xd1},  // xsetbv
  };
  for (const auto& code : privileged) {
    t_.long_mode(3);
    t_.reg(kRbx) = CpuFixture::kData;
    t_.put(CpuFixture::kCode, code);
    step(t_.cpu());
    EXPECT_EQ(t_.fault_vector(), kGp) << int{code[0]} << " " << int{code.back()};
    EXPECT_EQ(t_.saved_rip(true), CpuFixture::kCode);
  }
}

TEST_F(SystemTest, RefusedInstructionsAreUd) {
  const std::vector<std::vector<u8>> undefined = {
      {0x0f, 0x0b},                    // ud2
      {0x0f, 0xff, 0xc0},              // ud0
      {0x0f, 0xb9, 0xc0},              // ud1
      {0x0f, 0x01, 0xc2},              // vmlaunch
      {0x0f, 0x01, 0xd8},              // vmrun
      {0x0f, 0x78, 0xc0},              // vmread
      {0xf3, 0x0f, 0xc7, 0x33},        // vmxon
      {0x0f, 0x01, 0xcf},              // encls
      {0x0f, 0xaa},                    // rsm
      {0xf3, 0x48, 0x0f, 0xae, 0xe8},  // incsspq
      {0x0f, 0x37},                    // getsec
      {0xf0, 0x89, 0x03},              // lock mov
      {0xf0, 0x48, 0x01, 0xd8},        // lock add to a register
      {0x0f, 0x20, 0xc8},              // mov rax, cr1
      {0x06},                          // push es
      {0x27},                          // daa
      {0x0f, 0x04},
      {0xc7, 0xf8, 0, 0, 0, 0},  // xbegin
      {0x8e, 0xc8},              // mov cs, eax
  };
  for (const auto& code : undefined) {
    t_.long_mode();
    t_.reg(kRbx) = CpuFixture::kData;
    t_.put(CpuFixture::kCode, code);
    step(t_.cpu());
    EXPECT_EQ(t_.fault_vector(), kUd) << int{code[0]} << " " << int{code.back()};
  }
}

TEST_F(SystemTest, ControlRegisters) {
  EXPECT_EQ(t_.run({0x0f, 0x20, 0xd8}), StepResult::kNext);  // mov rax, cr3
  EXPECT_EQ(t_.reg(kRax), 0x1000u);
  EXPECT_EQ(t_.run({0x0f, 0x22, 0xd8}), StepResult::kBranch);
  t_.reg(kRax) = t_.s().cr0 & ~kCr0Pe;
  expect_fault({0x0f, 0x22, 0xc0}, kGp);  // PG without PE
}

TEST_F(SystemTest, ClearTaskSwitchedAndLmsw) {
  t_.s().cr0 |= kCr0Ts;
  t_.run({0x0f, 0x06});
  EXPECT_FALSE(t_.s().cr0 & kCr0Ts);
  t_.reg(kRax) = 8;
  t_.run({0x0f, 0x01, 0xf0});  // lmsw ax: sets TS, cannot clear PE
  EXPECT_TRUE(t_.s().cr0 & kCr0Ts);
  EXPECT_TRUE(t_.s().cr0 & kCr0Pe);
  t_.run({0x0f, 0x01, 0xe1});  // smsw ecx
  EXPECT_EQ(t_.reg(kRcx), static_cast<u32>(t_.s().cr0));
}

TEST_F(SystemTest, MsrsThroughEdxEax) {
  t_.reg(kRcx) = 0xc0000082;
  t_.reg(kRax) = 0xffffffff80001234;
  t_.reg(kRdx) = 0x11111111ffffffff;
  EXPECT_EQ(t_.run({0x0f, 0x30}), StepResult::kBranch);
  EXPECT_EQ(t_.s().lstar, 0xffffffff80001234u);
  t_.reg(kRax) = t_.reg(kRdx) = 0;
  EXPECT_EQ(t_.run({0x0f, 0x32}), StepResult::kNext);
  EXPECT_EQ(t_.reg(kRax), 0x80001234u);
  EXPECT_EQ(t_.reg(kRdx), 0xffffffffu);
  t_.reg(kRdx) = 0x8000;
  expect_fault({0x0f, 0x30}, kGp);  // not canonical
}

TEST_F(SystemTest, TscAndItsDisable) {
  t_.run({0x0f, 0x31});
  EXPECT_EQ(t_.reg(kRdx) >> 32, 0u);
  t_.s().tsc_aux = 7;
  t_.run({0x0f, 0x01, 0xf9});
  EXPECT_EQ(t_.reg(kRcx), 7u);
  t_.long_mode(3);
  t_.s().cr4 |= kCr4Tsd;
  expect_fault({0x0f, 0x31}, kGp);
}

TEST_F(SystemTest, SwapgsAndBases) {
  t_.s().kernel_gs_base = 0x1234;
  t_.run({0x0f, 0x01, 0xf8});
  EXPECT_EQ(t_.s().seg[kGs].base, 0x1234u);
  t_.reg(kRax) = 0xffff800000000000;
  t_.run({0xf3, 0x48, 0x0f, 0xae, 0xd0});  // wrfsbase rax
  EXPECT_EQ(t_.s().seg[kFs].base, 0xffff800000000000u);
  t_.run({0xf3, 0x0f, 0xae, 0xc1});  // rdfsbase ecx
  EXPECT_EQ(t_.reg(kRcx), 0u);
  t_.reg(kRax) = 0x800000000000;
  expect_fault({0xf3, 0x48, 0x0f, 0xae, 0xd0}, kGp);
  t_.long_mode();
  t_.s().cr4 &= ~kCr4Fsgsbase;
  expect_fault({0xf3, 0x48, 0x0f, 0xae, 0xd0}, kUd);
}

TEST_F(SystemTest, DescriptorTables) {
  t_.poke<u16>(CpuFixture::kData, 0x123);
  t_.poke<u64>(CpuFixture::kData + 2, 0xffffffff80000000);
  t_.reg(kRbx) = CpuFixture::kData;
  t_.run({0x0f, 0x01, 0x1b});  // lidt [rbx]
  EXPECT_EQ(t_.s().idtr.base, 0xffffffff80000000u);
  EXPECT_EQ(t_.s().idtr.limit, 0x123u);
  t_.reg(kRbx) = CpuFixture::kData + 0x100;
  t_.run({0x0f, 0x01, 0x0b});  // sidt [rbx]
  EXPECT_EQ(t_.peek<u64>(CpuFixture::kData + 0x102), 0xffffffff80000000u);
  t_.long_mode();
  t_.poke<u64>(CpuFixture::kData + 2, 0x800000000000);
  t_.reg(kRbx) = CpuFixture::kData;
  expect_fault({0x0f, 0x01, 0x13}, kGp);
}

TEST_F(SystemTest, UmipHidesTables) {
  t_.long_mode(3);
  t_.reg(kRbx) = CpuFixture::kData;
  EXPECT_EQ(t_.run({0x0f, 0x01, 0x03}), StepResult::kNext);
  t_.s().cr4 |= kCr4Umip;
  for (const std::initializer_list<u8> code : {std::initializer_list<u8>{0x0f, 0x01, 0x03},
                                               {0x0f, 0x01, 0x0b},
                                               {0x0f, 0x00, 0xc0},
                                               {0x0f, 0x00, 0xc8},
                                               {0x0f, 0x01, 0xe0}}) {
    t_.long_mode(3);
    t_.s().cr4 |= kCr4Umip;
    t_.reg(kRbx) = CpuFixture::kData;
    expect_fault(code, kGp);
  }
}

TEST_F(SystemTest, LarLslVerrVerw) {
  t_.reg(kRcx) = CpuFixture::kData32;
  t_.run({0x0f, 0x02, 0xc1});  // lar eax, ecx
  EXPECT_TRUE(t_.s().rflags & kZf);
  EXPECT_EQ(t_.reg(kRax), 0xcf9300u);
  t_.run({0x0f, 0x03, 0xc1});  // lsl
  EXPECT_EQ(t_.reg(kRax), 0xffffffffu);
  t_.run({0x0f, 0x00, 0xe1});  // verr cx
  EXPECT_TRUE(t_.s().rflags & kZf);
  t_.reg(kRcx) = CpuFixture::kReadOnlyData;
  t_.run({0x0f, 0x00, 0xe9});  // verw cx
  EXPECT_FALSE(t_.s().rflags & kZf);
  t_.reg(kRax) = 0x55;
  for (const u64 bad : {0x0u, 0x40u, 0x7f8u, 0x14u}) {  // null, empty, beyond the table, no LDT
    t_.reg(kRcx) = bad;
    t_.run({0x0f, 0x02, 0xc1});
    EXPECT_FALSE(t_.s().rflags & kZf) << bad;
    EXPECT_EQ(t_.reg(kRax), 0x55u);
  }
  t_.reg(kRcx) = CpuFixture::kTssSelector;
  t_.run({0x0f, 0x03, 0xc1});
  EXPECT_EQ(t_.reg(kRax), 0x67u);
  t_.real_mode();
  expect_fault({0x0f, 0x02, 0xc1}, kUd);
}

TEST_F(SystemTest, UserCannotSeeKernelSegments) {
  t_.long_mode(3);
  t_.reg(kRcx) = CpuFixture::kData32;
  t_.s().rflags |= kZf;
  t_.run({0x0f, 0x02, 0xc1});
  EXPECT_FALSE(t_.s().rflags & kZf);
}

TEST_F(SystemTest, StiShadowsOneInstruction) {
  EXPECT_EQ(t_.run({0xfb}), StepResult::kBranch);
  EXPECT_TRUE(t_.s().interrupt_shadow);
  t_.run({0x90});
  EXPECT_FALSE(t_.s().interrupt_shadow);
  t_.run({0xfb});  // already on: no shadow
  EXPECT_FALSE(t_.s().interrupt_shadow);
  EXPECT_EQ(t_.run({0xfa}), StepResult::kBranch);
  EXPECT_FALSE(t_.s().rflags & kIf);
}

TEST_F(SystemTest, StiThenHltHalts) {
  t_.run({0xfb});
  const u64 at = t_.s().rip;
  EXPECT_EQ(t_.run({0xf4}), StepResult::kHalt);
  EXPECT_EQ(t_.s().rip, at + 1);
  EXPECT_FALSE(t_.s().interrupt_shadow);
}

TEST_F(SystemTest, AFaultEndsTheShadow) {
  t_.run({0xfb});
  expect_fault({0x0f, 0x0b}, kUd);
  EXPECT_FALSE(t_.s().interrupt_shadow);
}

TEST_F(SystemTest, PortsExitAndComplete) {
  t_.reg(kRax) = 0xffffffffffffffff;
  EXPECT_EQ(t_.run({0xe4, 0x64}), StepResult::kExit);
  EXPECT_EQ(t_.s().rip, CpuFixture::kCode);
  auto& port = std::get<PortExit>(t_.cpu().exit);
  EXPECT_EQ(port.port, 0x64);
  port.value = 0x1c;
  t_.cpu().take_answer();
  EXPECT_EQ(step(t_.cpu()), StepResult::kNext);
  EXPECT_EQ(t_.reg(kRax), 0xffffffffffffff1cu);
  t_.reg(kRdx) = 0x3f8;
  t_.reg(kRax) = 0x12345678;
  EXPECT_EQ(t_.run({0x66, 0xef}), StepResult::kExit);
  EXPECT_EQ(std::get<PortExit>(t_.cpu().exit).value, 0x5678u);
  EXPECT_EQ(std::get<PortExit>(t_.cpu().exit).size, 2);
}

TEST_F(SystemTest, HypercallIsAnsweredOnce) {
  t_.reg(kRax) = 17;
  for (const auto& [reg, value] : {std::pair{kRdi, 1}, {kRsi, 2}, {kRdx, 3}, {kR10, 4}, {kR8, 5}, {kR9, 6}})
    t_.reg(reg) = static_cast<u64>(value) << 40;
  t_.put(CpuFixture::kCode, {0x0f, 0x01, 0xc1});
  EXPECT_EQ(step(t_.cpu()), StepResult::kExit);
  auto& call = std::get<HypercallExit>(t_.cpu().exit);
  EXPECT_EQ(call.number, 17u);
  EXPECT_TRUE(call.long_mode);
  for (u64 i = 0; i < 6; ++i) EXPECT_EQ(call.args[i], (i + 1) << 40);
  call.result = 5;
  t_.cpu().take_answer();
  EXPECT_EQ(step(t_.cpu()), StepResult::kBranch);
  EXPECT_EQ(t_.s().rip, CpuFixture::kCode + 3);
  EXPECT_EQ(t_.reg(kRax), 5u);
}

TEST_F(SystemTest, HypercallFromUserIsUd) {
  t_.long_mode(3);
  expect_fault({0x0f, 0x01, 0xd9}, kUd);
}

TEST_F(SystemTest, ReadModifyWriteOfMmioIsTwoExits) {
  t_.map(CpuFixture::kData, 7);
  t_.poke<u64>(0x4000 + (CpuFixture::kData - 0x400000) / kPageSize * 8, 0xd0000000 | 7);
  t_.cpu().flush_tlb(true);
  t_.reg(kRbx) = CpuFixture::kData;
  t_.put(CpuFixture::kCode, {0xf0, 0x83, 0x03, 0x05});  // lock add dword [rbx], 5
  EXPECT_EQ(step(t_.cpu()), StepResult::kExit);
  auto& read = std::get<MmioExit>(t_.cpu().exit);
  EXPECT_EQ(read.address, Gpa{0xd0000000});
  EXPECT_FALSE(read.write);
  read.value = 10;
  t_.cpu().take_answer();
  EXPECT_EQ(step(t_.cpu()), StepResult::kExit);
  EXPECT_TRUE(std::get<MmioExit>(t_.cpu().exit).write);
  EXPECT_EQ(std::get<MmioExit>(t_.cpu().exit).value, 15u);
  t_.cpu().take_answer();
  EXPECT_EQ(step(t_.cpu()), StepResult::kNext);
  EXPECT_TRUE(t_.shared.split_lock.try_lock());  // every escape released it
  t_.shared.split_lock.unlock();
}

TEST_F(SystemTest, LockedAccessAcrossPages) {
  t_.poke<u64>(CpuFixture::kData + 0xffc, 0x00000001ffffffff);
  t_.reg(kRbx) = CpuFixture::kData + 0xffc;
  EXPECT_EQ(t_.run({0xf0, 0x48, 0xff, 0x03}), StepResult::kNext);
  EXPECT_EQ(t_.peek<u64>(CpuFixture::kData + 0xffc), 0x0000000200000000u);
}

TEST_F(SystemTest, LockedAccessIntoAMissingPageChangesNothing) {
  t_.poke<u64>(CpuFixture::kData + 0xffc, 1);
  t_.map(CpuFixture::kData + 0x1000, 0);
  t_.reg(kRbx) = CpuFixture::kData + 0xffc;
  expect_fault({0xf0, 0x48, 0xff, 0x03}, kPageFault);
  EXPECT_EQ(t_.peek<u64>(CpuFixture::kData + 0xffc), 1u);
  EXPECT_TRUE(t_.shared.split_lock.try_lock());
  t_.shared.split_lock.unlock();
}

TEST_F(SystemTest, ReadModifyWriteFaultsAsAWrite) {
  t_.long_mode(3);
  t_.map(CpuFixture::kData, 0);
  t_.reg(kRbx) = CpuFixture::kData;
  expect_fault({0x48, 0xff, 0x03}, kPageFault);
  EXPECT_EQ(t_.error_code(), 6u);
}

TEST_F(SystemTest, Cmpxchg16bWantsAlignment) {
  t_.reg(kRbx) = CpuFixture::kData + 8;
  expect_fault({0x48, 0x0f, 0xc7, 0x0b}, kGp);
}

TEST_F(SystemTest, StacClac) {
  if (!t_.shared.cpu_model.has(7, 0, 'b', 20)) GTEST_SKIP() << "no SMAP in the CPU model";
  EXPECT_EQ(t_.run({0x0f, 0x01, 0xcb}), StepResult::kBranch);
  EXPECT_TRUE(t_.s().rflags & kAc);
  EXPECT_EQ(t_.run({0x0f, 0x01, 0xca}), StepResult::kBranch);
  EXPECT_FALSE(t_.s().rflags & kAc);
  t_.long_mode(3);
  expect_fault({0x0f, 0x01, 0xcb}, kUd);
}

TEST_F(SystemTest, Xgetbv) {
  t_.reg(kRcx) = 0;
  EXPECT_EQ(t_.run({0x0f, 0x01, 0xd0}), StepResult::kNext);
  EXPECT_EQ(t_.reg(kRax), 7u);
  t_.reg(kRcx) = 2;
  expect_fault({0x0f, 0x01, 0xd0}, kGp);
  t_.long_mode();
  t_.s().cr4 &= ~kCr4Osxsave;
  expect_fault({0x0f, 0x01, 0xd0}, kUd);
}

TEST_F(SystemTest, ClflushChecksTheAddress) {
  t_.map(CpuFixture::kData, 0);
  t_.reg(kRbx) = CpuFixture::kData;
  expect_fault({0x0f, 0xae, 0x3b}, kPageFault);
}

TEST_F(SystemTest, RandomNumbersSetCarry) {
  if (!t_.shared.cpu_model.has(1, 0, 'c', 30)) GTEST_SKIP() << "no RDRAND in the CPU model";
  t_.s().rflags |= kZf | kOf;
  t_.run({0x48, 0x0f, 0xc7, 0xf0});
  EXPECT_EQ(t_.s().rflags & (kZf | kOf), 0u);
}

// ---- debug
TEST_F(SystemTest, SingleStepTrapsAfterTheInstruction) {
  t_.s().rflags |= kTf;
  t_.refresh();
  t_.run({0x90});
  EXPECT_EQ(t_.fault_vector(), kDb);
  EXPECT_EQ(t_.saved_rip(false), CpuFixture::kCode + 1);
  EXPECT_TRUE(t_.s().dr[6] & 0x4000);
}
TEST_F(SystemTest, PopfWithTfTrapsOneLater) {
  t_.poke<u64>(CpuFixture::kStack, kTf);
  t_.run({0x9d});
  EXPECT_FALSE(t_.fault_vector());
  t_.run({0x90});
  EXPECT_EQ(t_.fault_vector(), kDb);
}
TEST_F(SystemTest, SingleStepStopsAfterEachIteration) {
  t_.s().rflags |= kTf;
  t_.refresh();
  t_.reg(kRsi) = t_.reg(kRdi) = CpuFixture::kData;
  t_.reg(kRcx) = 5;
  t_.run({0xf3, 0xa4});
  EXPECT_EQ(t_.fault_vector(), kDb);
  EXPECT_EQ(t_.reg(kRcx), 4u);
  EXPECT_EQ(t_.saved_rip(false), CpuFixture::kCode);
}
TEST_F(SystemTest, InstructionBreakpointAndResumeFlag) {
  t_.s().dr[0] = CpuFixture::kCode;
  t_.s().dr[7] = 0x401;
  t_.refresh();
  t_.run({0x90});
  EXPECT_EQ(t_.fault_vector(), kDb);
  EXPECT_EQ(t_.saved_rip(false), CpuFixture::kCode);
  EXPECT_FALSE(t_.peek<u64>(t_.reg(kRsp) + 16) & kRf);  // the handler sets it [SDM-3B §18.3.1.1]
  t_.long_mode();
  t_.s().rflags |= kRf;
  EXPECT_EQ(t_.run({0x90}), StepResult::kNext);
  EXPECT_FALSE(t_.s().rflags & kRf);
}
TEST_F(SystemTest, DataBreakpointTrapsBehindTheStore) {
  t_.s().dr[1] = CpuFixture::kData;
  t_.s().dr[7] = 0x400 | 0x4 | 0x1u << 20 | 3u << 22;  // DR1, write, 4 bytes
  t_.refresh();
  t_.reg(kRbx) = CpuFixture::kData;
  t_.run({0x8b, 0x03});
  EXPECT_FALSE(t_.fault_vector());
  t_.run({0x88, 0x43, 0x02});
  EXPECT_EQ(t_.fault_vector(), kDb);
  EXPECT_TRUE(t_.s().dr[6] & 2);
}
TEST_F(SystemTest, RfEndsWithTheInstruction) {
  t_.s().rflags |= kRf;
  t_.run({0x90});
  EXPECT_FALSE(t_.s().rflags & kRf);
}

// Two vCPUs on two threads count together.
TEST(Locked, IncrementsOfTwoVcpusAddUp) {
  CpuFixture t{2};
  constexpr unsigned kRounds = 20000;
  t.put(CpuFixture::kCode, {0xf0, 0x48, 0xff, 0x03});
  Cpu& second = *t.shared.cpus[1];
  second.s.seg = t.s().seg;
  second.s.cr0 = t.s().cr0;
  second.s.cr3 = t.s().cr3;
  second.s.cr4 = t.s().cr4;
  second.s.efer = t.s().efer;
  second.mode_changed();
  const auto count = [](Cpu& cpu) {
    cpu.s.gpr[kRbx] = CpuFixture::kData + 3;  // not aligned
    for (unsigned i = 0; i < kRounds; ++i) {
      cpu.s.rip = CpuFixture::kCode;
      step(cpu);
    }
  };
  std::thread other{[&] { count(second); }};
  count(t.cpu());
  other.join();
  EXPECT_EQ(t.peek<u64>(CpuFixture::kData + 3), 2 * kRounds);
}

}  // namespace
}  // namespace bulkhead::engine::dbt
