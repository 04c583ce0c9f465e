// The way into the guest kernel and back, on vCPUs that run nothing.
#include <gtest/gtest.h>
#include <xen/physdev.h>
#include <xen/vcpu.h>

#include "abi/xen/pv/testing/small_machine.h"

namespace bulkhead::abi::xen::pv {
namespace {

using namespace testing;
using Cpu = engine::DeprivilegedCpu;
using engine::GuestMode;

constexpr u64 kHandler = address(120), kUserRip = 0x401000, kUserStack = 0x7fff0008;
constexpr u64 kIf = 0x200;

struct TrapsTest : ::testing::Test, SmallMachine {
  TrapsTest() { domain.set_upcall_masked(0, false); }
  // As the kernel, and then where the guest was.
  void handle(u8 vector, u64 handler, u8 flags = 0) {
    const u64 rip = cpu.rip();
    const auto gpr = cpu.gpr();
    set_trap(vector, handler, flags);
    cpu.rip() = rip;
    cpu.gpr() = gpr;
  }
  // As after an iret to user mode, on page tables of its own.
  void enter_user() {
    cpu.set_mode(GuestMode::kKernel);
    mmuext(MMUEXT_NEW_USER_BASEPTR, kL4);
    call(__HYPERVISOR_stack_switch, {0, address(kStack + 1)});
    cpu.set_mode(GuestMode::kUser);
    cpu.rip() = kUserRip;
    cpu.gpr()[Cpu::kRsp] = kUserStack;
    cpu.set_flat_code_and_stack(FLAT_USER_CS64, FLAT_USER_SS64);
    cpu.bases[Cpu::kGs] = 0x1111;
    cpu.hidden_gs = 0x2222;
  }
  i64 iret(iret_context frame) {
    const u64 sp = address(kStack, 0x800);
    cpu.gpr()[Cpu::kRsp] = sp;
    cpu.rip() = address(90);
    at<iret_context>(kStack, 0x800) = frame;
    return call(__HYPERVISOR_iret);
  }
  void allow_ports(u32 level) { op(__HYPERVISOR_physdev_op, PHYSDEVOP_set_iopl, physdev_set_iopl_t{level}); }
  void code(std::initializer_list<u8> bytes) {
    cpu.code.clear();
    for (const u8 b : bytes) cpu.code.push_back(std::byte{b});
  }
  // #GP at an instruction: whether it was done for the guest.
  bool emulated(std::initializer_list<u8> bytes) {
    code(bytes);
    handle(13, kHandler);
    cpu.rip() = address(100);
    exception(13, 0);
    if (cpu.rip() == kHandler) return false;
    EXPECT_EQ(cpu.rip(), address(100) + bytes.size());
    return true;
  }
};

TEST_F(TrapsTest, Begins) {
  EXPECT_FALSE(cpu.halted());
  EXPECT_EQ(cpu.rip(), address(100));
  EXPECT_EQ(cpu.gpr()[Cpu::kRsi], address(101));
  EXPECT_EQ(cpu.kernel_root, kL4 << 12);
  EXPECT_EQ(cpu.selectors[Cpu::kCs], FLAT_KERNEL_CS);
  EXPECT_TRUE(cpus[1].halted());
}

TEST_F(TrapsTest, ExceptionInTheKernel) {
  handle(6, kHandler);
  cpu.rip() = address(100);
  cpu.gpr()[Cpu::kRsp] = address(kStack, 0x808);
  cpu.gpr()[Cpu::kRcx] = 11, cpu.gpr()[Cpu::kR11] = 22;
  cpu.set_rflags(0x40347);  // with AC and TF
  exception(6);
  EXPECT_EQ(cpu.rip(), kHandler);
  EXPECT_EQ(cpu.gpr()[Cpu::kRsp], address(kStack, 0x800) - 7 * 8);  // aligned first
  const u64 expected[] = {
      11, 22, address(100), FLAT_KERNEL_CS & ~u64{3}, 0x40347, address(kStack, 0x808), FLAT_KERNEL_SS};
  for (unsigned i = 0; i < 7; ++i) EXPECT_EQ(pushed(i), expected[i]) << i;
  EXPECT_EQ(cpu.rflags() & 0x40100, 0u);
  EXPECT_FALSE(domain.upcall_masked(0));
}

TEST_F(TrapsTest, ExceptionWithAnErrorCodeThatMasksEvents) {
  handle(11, kHandler, 4);
  exception(11, 0x18);
  EXPECT_EQ(pushed(2), 0x18u);
  EXPECT_EQ(pushed(3), address(100));
  EXPECT_EQ(pushed(4), FLAT_KERNEL_CS & ~u64{3});
  EXPECT_TRUE(pushed(5) & kIf);
  EXPECT_TRUE(domain.upcall_masked(0));
  exception(11, 0x18);  // now with the mask in the saved selector's upper half, and IF as the guest sees it
  EXPECT_EQ(pushed(4), (FLAT_KERNEL_CS & ~u64{3}) | u64{1} << 32);
  EXPECT_FALSE(pushed(5) & kIf);
}

TEST_F(TrapsTest, ExceptionInUserMode) {
  handle(0, kHandler);
  enter_user();
  exception(0);
  EXPECT_EQ(cpu.mode(), GuestMode::kKernel);
  EXPECT_EQ(cpu.bases[Cpu::kGs], 0x2222u);
  EXPECT_EQ(cpu.hidden_gs, 0x1111u);
  EXPECT_EQ(cpu.gpr()[Cpu::kRsp], address(kStack + 1) - 7 * 8);
  EXPECT_EQ(pushed(2), kUserRip);
  EXPECT_EQ(pushed(3), u64{FLAT_USER_CS64});  // ring 3 tells the users
  EXPECT_EQ(pushed(5), kUserStack);
}

TEST_F(TrapsTest, PageFaults) {
  handle(14, kHandler);
  exception(14, 7, 0x1234);  // the engine says "user" of everything
  EXPECT_EQ(pushed(2), 3u);
  EXPECT_EQ(reinterpret_cast<vcpu_info_t*>(domain.vcpu_info(0))->arch.cr2, 0x1234u);
  enter_user();
  exception(14, 4, 0x5678);
  EXPECT_EQ(pushed(2), 4u);
}

TEST_F(TrapsTest, NoHandlerIsTheEndOfTheZone) {
  exception(6);
  ASSERT_EQ(crashes.size(), 1u);
  EXPECT_TRUE(crashes[0].contains("no handler")) << crashes[0];
  EXPECT_TRUE(cpu.halted());
}

TEST_F(TrapsTest, StacksThatCannotBeWritten) {
  handle(6, kHandler);
  for (const u64 bad : {u64{0}, u64{8}, kHypervisor + 0x1000, kHypervisor, kPerDomainStart + 64, u64{1} << 47, ~u64{15},
                        address(kL1 + 0, 0x800), kHypervisor + (u64{16} << 39)}) {
    crashes.clear();
    cpu.set_halted(false);
    cpu.gpr()[Cpu::kRsp] = bad;
    exception(6);
    EXPECT_EQ(crashes.size(), 1u) << std::hex << bad;
  }
}

TEST_F(TrapsTest, SystemCalls) {
  set_callback(CALLBACKTYPE_syscall, kHandler, CALLBACKF_mask_events);
  set_callback(CALLBACKTYPE_syscall32, kHandler + 16);
  enter_user();
  const engine::Trap syscall{engine::Trap::Kind::kSyscall, 0, false, 0, 0, kUserRip + 2};
  guest.trap(cpu, syscall);
  EXPECT_EQ(cpu.rip(), kHandler);
  EXPECT_EQ(pushed(0), kUserRip + 2);  // RCX
  EXPECT_EQ(pushed(1), 0x202u);        // R11
  EXPECT_EQ(pushed(2), kUserRip + 2);
  EXPECT_EQ(pushed(3), u64{FLAT_USER_CS64});
  EXPECT_EQ(pushed(6), u64{FLAT_USER_SS64});
  EXPECT_TRUE(domain.upcall_masked(0));
  enter_user();
  cpu.wide = false;
  guest.trap(cpu, syscall);
  EXPECT_EQ(cpu.rip(), kHandler + 16);
  EXPECT_EQ(pushed(3) & 0xffff, u64{FLAT_USER_CS32});
}

TEST_F(TrapsTest, UsersMakeNoHypercalls) {
  set_callback(CALLBACKTYPE_syscall, kHandler);
  enter_user();
  cpu.gpr()[Cpu::kRax] = __HYPERVISOR_sched_op;
  cpu.gpr()[Cpu::kRdi] = 2;
  guest.trap(cpu, {engine::Trap::Kind::kSyscall, 0, false, 0, 0, kUserRip + 2});
  EXPECT_TRUE(ends.empty());
  EXPECT_EQ(cpu.rip(), kHandler);
}

TEST_F(TrapsTest, SysenterNeedsACallbackAndAUser) {
  handle(13, kHandler + 32);
  const engine::Trap sysenter{engine::Trap::Kind::kSysenter, 0, false, 0, 0, kUserRip + 2};
  enter_user();
  guest.trap(cpu, sysenter);
  EXPECT_EQ(cpu.rip(), kHandler + 32);
  set_callback(CALLBACKTYPE_sysenter, kHandler);
  guest.trap(cpu, sysenter);  // from the kernel
  EXPECT_EQ(cpu.rip(), kHandler + 32);
  enter_user();
  guest.trap(cpu, sysenter);
  EXPECT_EQ(cpu.rip(), kHandler);
}

TEST_F(TrapsTest, SoftwareInterruptsByPrivilege) {
  handle(13, kHandler);
  handle(0x80, kHandler + 16, 3);
  handle(0x81, kHandler + 32, 1);
  handle(0x82, kHandler + 48, 0);
  const auto int_n = [&](u8 vector) {
    guest.trap(cpu, {engine::Trap::Kind::kSoftwareInterrupt, vector, false, 0, 0, cpu.rip() + 2});
    return cpu.rip();
  };
  EXPECT_EQ(int_n(0x81), kHandler + 32);
  EXPECT_EQ(int_n(0x82), kHandler);
  EXPECT_EQ(pushed(2), 0x82u * 8 + 2);
  enter_user();
  EXPECT_EQ(int_n(0x80), kHandler + 16);
  EXPECT_EQ(pushed(2), kUserRip + 2);  // behind it
  enter_user();
  EXPECT_EQ(int_n(0x81), kHandler);
  EXPECT_EQ(pushed(3), kUserRip);  // at it
  enter_user();
  EXPECT_EQ(int_n(14), kHandler);  // users cannot pretend a page fault
}

TEST_F(TrapsTest, Events) {
  set_callback(CALLBACKTYPE_event, kHandler);
  domain.set_upcall_pending(0, true);
  guest.attention(cpu);
  EXPECT_EQ(cpu.rip(), kHandler);
  EXPECT_TRUE(domain.upcall_masked(0));
  const u64 rsp = cpu.gpr()[Cpu::kRsp];
  guest.attention(cpu);  // masked: it waits
  EXPECT_EQ(cpu.gpr()[Cpu::kRsp], rsp);
  iret_context back{};
  back.rip = address(100), back.cs = FLAT_KERNEL_CS & ~3u, back.ss = FLAT_KERNEL_SS, back.rsp = address(kStack, 0x800);
  back.rflags = kIf;
  iret(back);  // unmasks, and what is pending comes at once
  EXPECT_EQ(cpu.rip(), kHandler);
  EXPECT_EQ(pushed(2), address(100));
}

TEST_F(TrapsTest, AStormOfEventsIsOneUpcall) {
  set_callback(CALLBACKTYPE_event, kHandler);
  cpu.gpr()[Cpu::kRsp] = address(kStack, 0x800);
  for (unsigned i = 0; i < 100000; ++i) {
    domain.set_upcall_pending(0, true);
    guest.attention(cpu);
  }
  EXPECT_EQ(cpu.gpr()[Cpu::kRsp], address(kStack, 0x800) - 7 * 8);
}

TEST_F(TrapsTest, NmisDoNotNest) {
  set_callback(CALLBACKTYPE_nmi, kHandler);
  guest.send_nmi(0);
  EXPECT_EQ(partition.attention.back(), 0u);
  guest.attention(cpu);
  EXPECT_EQ(cpu.rip(), kHandler);
  const u64 rsp = cpu.gpr()[Cpu::kRsp];
  guest.send_nmi(0);
  guest.attention(cpu);
  EXPECT_EQ(cpu.gpr()[Cpu::kRsp], rsp);
}

// ---- iret

TEST_F(TrapsTest, IretToUserMode) {
  mmuext(MMUEXT_NEW_USER_BASEPTR, kL4);
  cpu.bases[Cpu::kGs] = 0x2222, cpu.hidden_gs = 0x1111;
  iret_context to{};
  to.rax = 1, to.r11 = 2, to.rcx = 3, to.rip = kUserRip, to.cs = FLAT_USER_CS64, to.rflags = 0x246 | 0x24000;
  to.rsp = kUserStack, to.ss = FLAT_USER_SS64;
  iret(to);
  EXPECT_EQ(cpu.mode(), GuestMode::kUser);
  EXPECT_EQ(cpu.rip(), kUserRip);
  EXPECT_EQ(cpu.gpr()[Cpu::kRsp], kUserStack);
  EXPECT_EQ(cpu.gpr()[Cpu::kRax], 1u);
  EXPECT_EQ(cpu.gpr()[Cpu::kR11], 2u);
  EXPECT_EQ(cpu.gpr()[Cpu::kRcx], 3u);
  EXPECT_EQ(cpu.bases[Cpu::kGs], 0x1111u);
  EXPECT_EQ(cpu.rflags() & 0x24000, 0u);
  EXPECT_FALSE(domain.upcall_masked(0));
}

TEST_F(TrapsTest, IretFromASystemCallIsASysret) {
  mmuext(MMUEXT_NEW_USER_BASEPTR, kL4);
  iret_context to{};
  to.r11 = 2, to.rcx = 3, to.flags = VGCF_in_syscall, to.rip = kUserRip, to.cs = FLAT_USER_CS64, to.rflags = 0x246;
  to.rsp = kUserStack, to.ss = FLAT_USER_SS64;
  iret(to);
  EXPECT_EQ(cpu.gpr()[Cpu::kRcx], kUserRip);
  EXPECT_EQ(cpu.gpr()[Cpu::kR11], 0x246u);
}

TEST_F(TrapsTest, IretMasksEventsByIf) {
  iret_context to{};
  to.rip = address(100), to.cs = FLAT_KERNEL_CS & ~3u, to.ss = FLAT_KERNEL_SS, to.rsp = address(kStack, 0x800);
  iret(to);
  EXPECT_TRUE(domain.upcall_masked(0));
  EXPECT_EQ(cpu.mode(), GuestMode::kKernel);
  to.rflags = kIf;
  iret(to);
  EXPECT_FALSE(domain.upcall_masked(0));
}

TEST_F(TrapsTest, IretToBadSelectorsIsAFailsafe) {
  mmuext(MMUEXT_NEW_USER_BASEPTR, kL4);
  call(__HYPERVISOR_stack_switch, {0, address(kStack + 1)});
  set_callback(CALLBACKTYPE_failsafe, kHandler, CALLBACKF_mask_events);
  cpu.bad_selectors = {0x7b};
  cpu.selectors[Cpu::kDs] = 0x10, cpu.selectors[Cpu::kGs] = 0x13;
  iret_context to{};
  to.r11 = 2, to.rcx = 3, to.rip = kUserRip, to.cs = 0x7b, to.rflags = kIf, to.rsp = kUserStack, to.ss = FLAT_USER_SS64;
  iret(to);
  EXPECT_EQ(cpu.rip(), kHandler);
  EXPECT_EQ(cpu.mode(), GuestMode::kKernel);
  EXPECT_EQ(counter(Guest::kFailsafes), 1u);
  const u64 expected[] = {3, 2, 0x10, 0, 0, 0x13, kUserRip, 0x7b, 0x202, kUserStack, FLAT_USER_SS64};
  for (unsigned i = 0; i < 11; ++i) EXPECT_EQ(pushed(i), expected[i]) << i;
  EXPECT_TRUE(domain.upcall_masked(0));
}

TEST_F(TrapsTest, IretThatCannotBe) {
  iret_context to{};
  to.cs = FLAT_USER_CS64;
  iret(to);  // no user page tables
  ASSERT_EQ(crashes.size(), 1u);
  cpu.set_halted(false);
  cpu.gpr()[Cpu::kRsp] = 0x1000;
  call(__HYPERVISOR_iret);
  EXPECT_EQ(crashes.size(), 2u);
}

TEST_F(TrapsTest, IretIsNotPartOfAMulticall) {
  mmuext(MMUEXT_NEW_USER_BASEPTR, kL4);
  iret_context to{};
  to.rip = kUserRip, to.cs = FLAT_USER_CS64, to.rsp = kUserStack, to.ss = FLAT_USER_SS64;
  at<iret_context>(kStack, 0x800) = to;
  cpu.gpr()[Cpu::kRsp] = address(kStack, 0x800);
  auto* const entries = &at<multicall_entry_t>(kFirstFree);
  entries[0].op = entries[1].op = __HYPERVISOR_iret;
  EXPECT_EQ(call(__HYPERVISOR_multicall, {address(kFirstFree), 2}), 0);
  EXPECT_EQ(static_cast<i64>(entries[0].result), -XEN_ENOSYS);
  EXPECT_EQ(cpu.mode(), GuestMode::kKernel);
}

TEST_F(TrapsTest, AreasAreWrittenAlsoAfterAnIretToUserMode) {
  mmuext(MMUEXT_NEW_USER_BASEPTR, kL4);
  const u64 area = address(kFirstFree + 1);
  at<u64>(kFirstFree) = area;
  cpus[1].kernel_root = kL4 << 12;
  EXPECT_EQ(call(__HYPERVISOR_vcpu_op, {VCPUOP_register_runstate_memory_area, 0, address(kFirstFree)}, 1), 0);
  iret_context to{};
  to.rip = kUserRip, to.cs = FLAT_USER_CS64, to.rsp = kUserStack, to.ss = FLAT_USER_SS64;
  timers.clock().advance(1000);
  iret(to);
  EXPECT_EQ(cpu.mode(), GuestMode::kUser);
  EXPECT_NE(
      at<vcpu_runstate_info_t>(kFirstFree + 1).state_entry_time + at<vcpu_runstate_info_t>(kFirstFree + 1).time[0], 0u);
}

// ---- instructions

TEST_F(TrapsTest, CpuidWithXensPrefix) {
  handle(6, kHandler);
  code({0x0f, 0x0b, 'x', 'e', 'n', 0x0f, 0xa2});
  exception(6);
  EXPECT_EQ(cpu.rip(), address(100) + 7);
  EXPECT_EQ(cpu.gpr()[Cpu::kRax], 0xc001u);
  code({0x0f, 0x0b, 'x', 'e', 'n', 0x0f, 0xa3});
  exception(6);
  EXPECT_EQ(cpu.rip(), kHandler);
  cpu.rip() = address(100);
  code({0x0f, 0x0b, 'x', 'e', 'n', 0x0f});  // ends at a page that is not there
  exception(6);
  EXPECT_EQ(cpu.rip(), kHandler);
}

TEST_F(TrapsTest, ControlRegisters) {
  cpu.ts = true;
  EXPECT_TRUE(emulated({0x0f, 0x20, 0xc0}));  // mov rax, cr0
  EXPECT_EQ(cpu.gpr()[Cpu::kRax], 0x8005003bu);
  cpu.gpr()[Cpu::kRax] = 0x80050033;
  EXPECT_TRUE(emulated({0x0f, 0x22, 0xc0}));
  EXPECT_FALSE(cpu.ts);
  cpu.gpr()[Cpu::kRax] = 0x00050033;  // no paging
  EXPECT_FALSE(emulated({0x0f, 0x22, 0xc0}));
  EXPECT_TRUE(emulated({0x0f, 0x20, 0xd8}));  // mov rax, cr3
  EXPECT_EQ(cpu.gpr()[Cpu::kRax], kL4 << 12);
  EXPECT_TRUE(emulated({0x0f, 0x22, 0xd8}));
  cpu.gpr()[Cpu::kRax] = layout.tables << 12;
  EXPECT_FALSE(emulated({0x0f, 0x22, 0xd8}));
  EXPECT_EQ(cpu.kernel_root, kL4 << 12);
  const u64 cr4 = cpu.cr4();
  cpu.gpr()[Cpu::kRax] = ~u64{0};
  EXPECT_TRUE(emulated({0x0f, 0x22, 0xe0}));  // mov cr4, rax: only what is the guest's
  EXPECT_EQ(cpu.cr4() & ~cr4, 0x5070cu);
  EXPECT_FALSE(emulated({0x44, 0x0f, 0x20, 0xc0}));  // mov rax, cr8
  cpu.ts = true;
  EXPECT_TRUE(emulated({0x0f, 0x06}));  // clts
  EXPECT_FALSE(cpu.ts);
}

TEST_F(TrapsTest, Msrs) {
  const auto wrmsr = [&](u32 index, u64 value) {
    cpu.gpr()[Cpu::kRcx] = index, cpu.gpr()[Cpu::kRax] = value & 0xffffffff, cpu.gpr()[Cpu::kRdx] = value >> 32;
    return emulated({0x0f, 0x30});
  };
  const auto rdmsr = [&](u32 index) -> std::optional<u64> {
    cpu.gpr()[Cpu::kRcx] = index;
    if (!emulated({0x0f, 0x32})) return std::nullopt;
    return cpu.gpr()[Cpu::kRdx] << 32 | cpu.gpr()[Cpu::kRax];
  };
  EXPECT_EQ(rdmsr(0x10), 0x1122334455667788u);
  EXPECT_TRUE(wrmsr(0xc0000100, 0x7fff12345678));
  EXPECT_EQ(cpu.bases[Cpu::kFs], 0x7fff12345678u);
  EXPECT_EQ(rdmsr(0xc0000100), 0x7fff12345678u);
  for (const u32 base : {0xc0000100, 0xc0000101, 0xc0000102}) EXPECT_FALSE(wrmsr(base, u64{1} << 47));
  EXPECT_TRUE(wrmsr(0xc0000082, u64{1} << 47));  // LSTAR means nothing
  EXPECT_FALSE(wrmsr(0xc0000080, 0));            // EFER without long mode
  EXPECT_TRUE(rdmsr(0xc0000080));
  EXPECT_FALSE(wrmsr(0x277, 0));  // PAT is Xen's
  for (const u32 index : {0x3au, 0x800u, 0x1d9u, 0xc0010015u, 0x40000000u, ~0u}) {
    EXPECT_FALSE(rdmsr(index)) << index;
    EXPECT_FALSE(wrmsr(index, 0)) << index;
  }
  EXPECT_EQ(counter(Guest::kUnknownMsrs), 12u);
}

TEST_F(TrapsTest, PortsByPrivilege) {
  EXPECT_FALSE(emulated({0xec}));  // in al, dx
  allow_ports(1);
  cpu.gpr()[Cpu::kRax] = 0x1122334455667788;
  EXPECT_TRUE(emulated({0xec}));
  EXPECT_EQ(cpu.gpr()[Cpu::kRax], 0x11223344556677ffu);
  EXPECT_TRUE(emulated({0x66, 0xed}));
  EXPECT_EQ(cpu.gpr()[Cpu::kRax], 0x112233445566ffffu);
  EXPECT_TRUE(emulated({0xed}));
  EXPECT_EQ(cpu.gpr()[Cpu::kRax], 0xffffffffu);
  EXPECT_TRUE(emulated({0xe6, 0x80}));
  EXPECT_TRUE(emulated({0xfa}));
  EXPECT_EQ(op(__HYPERVISOR_physdev_op, PHYSDEVOP_set_iopl, physdev_set_iopl_t{4}), -XEN_EINVAL);
  handle(13, kHandler);
  enter_user();
  code({0xec});
  exception(13, 0);
  EXPECT_EQ(cpu.rip(), kHandler);
  allow_ports(3);
  enter_user();
  exception(13, 0);
  EXPECT_EQ(cpu.rip(), kUserRip + 1);
}

TEST_F(TrapsTest, UsersHaveNoPrivilegedInstructions) {
  handle(13, kHandler);
  for (const std::initializer_list<u8> bytes : {std::initializer_list<u8>{0x0f, 0x30},
                                                {0x0f, 0x32},
                                                {0x0f, 0x22, 0xd8},
                                                {0x0f, 0x20, 0xc0},
                                                {0x0f, 0x06},
                                                {0x0f, 0x23, 0xc0},
                                                {0x0f, 0x21, 0xc0},
                                                {0x0f, 0x01, 0xd1},
                                                {0x0f, 0x09}}) {
    enter_user();
    cpu.gpr()[Cpu::kRcx] = 0xc0000100;
    code(bytes);
    exception(13, 0);
    EXPECT_EQ(cpu.rip(), kHandler);
  }
}

TEST_F(TrapsTest, OthersAreNotEmulated) {
  for (const std::initializer_list<u8> bytes : {std::initializer_list<u8>{0xf4},
                                                {0x0f, 0x01, 0xf8},
                                                {0x0f, 0x01, 0x18},
                                                {0x0f, 0x00, 0xd8},
                                                {0x8e, 0xd8},
                                                {0xcf},
                                                {0x0f, 0x07},
                                                {0x0f, 0x01, 0xc1},
                                                {0x6c},
                                                {0x06},
                                                {0x90}})
    EXPECT_FALSE(emulated(bytes));
}

TEST_F(TrapsTest, InstructionsThatCannotBeRead) {
  cpu.code.clear();
  handle(13, kHandler);
  exception(13, 0x50);
  EXPECT_EQ(cpu.rip(), kHandler);
  EXPECT_EQ(pushed(2), 0x50u);
}

// ---- debug registers

TEST_F(TrapsTest, DebugRegisters) {
  const auto set = [&](u64 index, u64 value) { return call(__HYPERVISOR_set_debugreg, {index, value}); };
  EXPECT_EQ(set(0, address(5)), 0);
  EXPECT_EQ(call(__HYPERVISOR_get_debugreg, {0}), static_cast<i64>(address(5)));
  for (const u64 bad :
       {kHypervisor, kHypervisor - 4, kPerDomainStart, kHypervisor + (u64{16} << 39) - 1, u64{1} << 47, u64{1} << 63})
    EXPECT_EQ(set(1, bad), -XEN_EPERM) << std::hex << bad;
  EXPECT_EQ(set(7, 1 | 2u << 16), -XEN_EPERM);  // breakpoint at a port
  EXPECT_EQ(set(7, u64{2} << 28), -XEN_EPERM);
  EXPECT_EQ(set(7, ~u64{0}), 0);
  EXPECT_FALSE(cpu.debug[7] & (1u << 13));  // no general detect
  EXPECT_EQ(cpu.debug[7] >> 32, 0u);
  EXPECT_EQ(set(6, ~u64{0}), 0);
  EXPECT_EQ(cpu.debug[6], 0xffffeffeu | 1u);
  EXPECT_LT(set(4, 0), 0);
  EXPECT_LT(set(5, 0), 0);
  EXPECT_EQ(set(8, 0), -XEN_EINVAL);
  EXPECT_EQ(set(~u64{0}, 0), -XEN_EINVAL);
  EXPECT_EQ(call(__HYPERVISOR_get_debugreg, {8}), -XEN_EINVAL);
  EXPECT_EQ(call(__HYPERVISOR_get_debugreg, {u64{1} << 32}), -XEN_EINVAL);
}

// ---- writes to page tables as if they were memory

TEST_F(TrapsTest, WritablePageTables) {
  handle(14, kHandler);
  cpu.step = [](u64* copy) { copy[100] = 0; };
  exception(14, 3, address(kL1, 800));
  EXPECT_EQ(cpu.rip(), address(100) + 3);
  EXPECT_EQ(table(kL1)[100], 0u);
  EXPECT_EQ(counter(Guest::kEmulatedTableWrites), 1u);
  cpu.rip() = address(99);
  cpu.step = [&](u64* copy) { copy[101] = make_entry(layout.tables, kFlags); };
  exception(14, 3, address(kL1, 808));
  EXPECT_EQ(cpu.rip(), kHandler);  // refused: an ordinary fault, at the instruction
  EXPECT_EQ(pushed(3), address(99));
  cpu.rip() = address(99);
  cpu.step = [](u64*) {};
  exception(14, 3, address(kL2));  // higher tables are not written like that
  EXPECT_EQ(cpu.rip(), kHandler);
  cpu.rip() = address(99);
  exception(14, 3, kHypervisor);
  EXPECT_EQ(cpu.rip(), kHandler);
}

}  // namespace
}  // namespace bulkhead::abi::xen::pv
