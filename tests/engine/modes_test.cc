// Processor modes, paging, exceptions, changing code.
#include "tests/engine/tiny_guest.h"

namespace bulkhead::engine {
namespace {

TEST_P(Conformance, RealModeGuest) {
  BH_CONFORMANCE_GUEST(guest);
  guest.real_mode({0xb8, 0x00, 0x02,                    // mov ax,0x200
                   0x8e, 0xd8,                          // mov ds,ax
                   0xc7, 0x06, 0x10, 0x00, 0xcd, 0xab,  // mov word [0x10],0xabcd
                   0x31, 0xc0,                          // xor ax,ax
                   0x8e, 0xc0,                          // mov es,ax
                   0x26, 0xa1, 0x10, 0x20,              // mov ax,es:[0x2010]
                   0xba, 0xf4, 0x00,                    // mov dx,0xf4
                   0xef});                              // out dx,ax
  EXPECT_EQ(guest.report(), 0xabcdu);
}

TEST_P(Conformance, RealModeInterrupt) {
  BH_CONFORMANCE_GUEST(guest);
  const u8 handler[] = {0xb8, 0x77, 0x00, 0xcf};  // mov ax,0x77; iret
  std::memcpy(guest.host(0x2000), handler, sizeof handler);
  const u32 vector = 0x02000000;  // 0200:0000
  std::memcpy(guest.host(4 * 0x21), &vector, 4);
  guest.real_mode({0xcd, 0x21, 0xba, 0xf4, 0x00, 0xef});
  EXPECT_EQ(guest.report(), 0x77u);
}

TEST_P(Conformance, ProtectedModeGuest) {
  BH_CONFORMANCE_GUEST(guest);
  guest.protected_mode({0xb8, 0x10, 0x00, 0x00, 0x00,  // mov eax,0x10
                        0x8e, 0xc0,                    // mov es,eax
                        0x68, 0x44, 0x33, 0x22, 0x11,  // push 0x11223344
                        0x58,                          // pop eax
                        0xba, 0xf4, 0x00, 0x00, 0x00,  // mov edx,0xf4
                        0xef});                        // out dx,eax
  EXPECT_EQ(guest.report(), 0x11223344u);
}

TEST_P(Conformance, RealModeToLongMode) {
  BH_CONFORMANCE_GUEST(guest);
  const u8 table[] = {63, 0, kGdtAt & 0xff, kGdtAt >> 8, 0, 0};
  std::memcpy(guest.host(0x1800), table, sizeof table);
  guest.assemble(
      [](Code& c) {
        emit_read_cr(c, 0);
        c.shr(c.rax, 31);
        emit_report(c);
      },
      kCodeAt);
  guest.real_mode({0xfa,                                                  // cli
                   0x66, 0x0f, 0x01, 0x16, 0x00, 0x18,                    // lgdt [0x1800]
                   0x66, 0xb8, 0x20, 0x06, 0x00, 0x00, 0x0f, 0x22, 0xe0,  // mov eax,0x620; mov cr4,eax
                   0x66, 0xb8, 0x00, 0x00, 0x01, 0x00, 0x0f, 0x22, 0xd8,  // mov eax,0x10000; mov cr3,eax
                   0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32,        // mov ecx,EFER; rdmsr
                   0x66, 0x0d, 0x00, 0x01, 0x00, 0x00, 0x0f, 0x30,        // or eax,LME; wrmsr
                   0x66, 0xb8, 0x33, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0,  // mov eax,0x80000033; mov cr0,eax
                   0x66, 0xea, 0x00, 0x00, 0x10, 0x00, 0x08, 0x00});      // jmp far 8:0x100000
  EXPECT_EQ(guest.report(), 1u);
}

TEST_P(Conformance, PageFaultSaysWhereAndWhy) {
  BH_CONFORMANCE_GUEST(guest);
  guest.set_small_page(kSmallPages + 0x3000, 0);
  guest.set_small_page(kSmallPages + 0x4000, (kSmallPages + 0x4000) | 5);  // read-only
  guest.long_mode([&](Code& c) {
    Xbyak::Label second;
    c.mov(c.ebx, static_cast<u32>(kSmallPages));
    c.mov(c.eax, c.dword[c.rbx + 0x3008]);
    c.mov(c.dword[c.rbx + 0x4010], c.eax);
    guest.set_gate(14, guest.here(c));
    c.pop(c.rax);  // error code
    emit_report(c);
    emit_read_cr(c, 2);
    emit_report(c);
    c.mov(c.rax, c.qword[c.rsp]);
    emit_report(c);
    c.add(c.qword[c.rsp], 6);  // both instructions are six bytes long
    emit_iret(c);
  });
  EXPECT_EQ(guest.report(), 0u);
  EXPECT_EQ(guest.report(), kSmallPages + 0x3008);
  EXPECT_EQ(guest.report(), kCodeAt + 5);
  EXPECT_EQ(guest.report(), 3u);
  EXPECT_EQ(guest.report(), kSmallPages + 0x4010);
  EXPECT_EQ(guest.report(), kCodeAt + 11);
}

TEST_P(Conformance, UserModeIsKeptOutOfSupervisorPages) {
  BH_CONFORMANCE_GUEST(guest);
  guest.set_small_page(kSmallPages + 0x5000, (kSmallPages + 0x5000) | 3);
  guest.long_mode([&](Code& c) {
    Xbyak::Label user;
    c.mov(c.ax, kTss);
    c.push(kUserData);
    c.push(static_cast<int>(kStack2Top));
    c.push(2);
    c.push(kUserCode);
    c.lea(c.rax, c.ptr[c.rip + user]);
    c.push(c.rax);
    emit_iret(c);
    c.L(user);
    c.mov(c.eax, c.dword[c.r15 + static_cast<int>(kSmallPages + 0x5000)]);
    guest.set_gate(14, guest.here(c));
    c.pop(c.rax);
    emit_report(c);
    c.mov(c.rax, c.qword[c.rsp + 8]);
    emit_report(c);
  });
  EXPECT_EQ(guest.report(), 5u);
  EXPECT_EQ(guest.report(), kUserCode);
}

TEST_P(Conformance, NoExecutePagesAreNotExecuted) {
  BH_CONFORMANCE_GUEST(guest);
  guest.set_small_page(kSmallPages + 0x6000, (kSmallPages + 0x6000) | 3 | u64{1} << 63);
  guest.long_mode([&](Code& c) {
    c.mov(c.eax, static_cast<u32>(kSmallPages + 0x6000));
    c.jmp(c.rax);
    guest.set_gate(14, guest.here(c));
    c.pop(c.rax);
    emit_report(c);
  });
  EXPECT_EQ(guest.report(), 0x11u);
}

TEST_P(Conformance, InvlpgMakesANewMappingVisible) {
  BH_CONFORMANCE_GUEST(guest);
  const u64 page = kSmallPages + 0x7000, other = kSmallPages + 0x8000;
  *reinterpret_cast<u32*>(guest.host(page)) = 1;
  *reinterpret_cast<u32*>(guest.host(other)) = 2;
  guest.long_mode([&](Code& c) {
    c.mov(c.ebx, static_cast<u32>(page));
    c.mov(c.eax, c.dword[c.rbx]);
    emit_report(c);
    c.mov(c.ecx, static_cast<u32>(kTablesAt + 0x6000 + 8 * ((page - kSmallPages) >> 12)));
    c.mov(c.eax, static_cast<u32>(other | 7));
    c.mov(c.qword[c.rcx], c.rax);
    c.db(0x0f), c.db(0x01), c.db(0x3b);  // invlpg [rbx]
    c.mov(c.eax, c.dword[c.rbx]);
    emit_report(c);
  });
  EXPECT_EQ(guest.report(), 1u);
  EXPECT_EQ(guest.report(), 2u);
}

TEST_P(Conformance, SyscallAndSysret) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([&](Code& c) {
    Xbyak::Label user, entry, start;
    const auto write_msr = [&](u32 index) {
      c.mov(c.ecx, index);
      c.mov(c.rdx, c.rax);
      c.shr(c.rdx, 32);
      c.wrmsr();
    };
    c.mov(c.rax, u64{kKernelCode} << 32 | u64{kKernelData | 3} << 48);  // SYSRET: SS = +8, CS = +16
    write_msr(0xc0000081);
    c.lea(c.rax, c.ptr[c.rip + entry]);
    write_msr(0xc0000082);
    c.mov(c.eax, 0x400);
    write_msr(0xc0000084);
    c.lea(c.rcx, c.ptr[c.rip + user]);
    c.mov(c.r11d, 0x402);
    c.db(0x48), c.db(0x0f), c.db(0x07);  // sysretq
    c.L(user);
    c.mov(c.ebx, 99);
    c.syscall();
    c.L(entry);
    c.mov(c.eax, c.ebx);
    emit_report(c);
    c.pushfq();
    c.pop(c.rax);
    emit_report(c);
    c.mov(c.rax, c.r11);
    emit_report(c);
  });
  EXPECT_EQ(guest.report(), 99u);
  EXPECT_EQ(guest.report() & 0x400, 0u);
  EXPECT_EQ(guest.report() & 0x400, 0x400u);
}

TEST_P(Conformance, SelfModifyingCode) {
  BH_NEEDS(Need::kModifiedCode);
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([](Code& c) {
    Xbyak::Label again, patched;
    c.xor_(c.ecx, c.ecx);
    c.xor_(c.ebx, c.ebx);
    c.L(again);
    c.lea(c.rdi, c.ptr[c.rip + patched]);
    c.mov(c.dword[c.rdi + 1], c.ecx);  // the immediate of the next instruction but one
    c.nop();
    c.L(patched);
    c.mov(c.eax, 0x7fffffff);
    c.add(c.ebx, c.eax);
    c.inc(c.ecx);
    c.cmp(c.ecx, 1000);
    c.jne(again);
    c.mov(c.eax, c.ebx);
    emit_report(c);
  });
  EXPECT_EQ(guest.report(), 499500u);
}

// Code that overwrites the flags becomes code that reads them: whoever jumps there must leave them in place from then
// on.
TEST_P(Conformance, CodeThatComesToReadFlagsGetsThem) {
  BH_NEEDS(Need::kModifiedCode);
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([](Code& c) {
    Xbyak::Label again, target;
    c.L(again);
    c.mov(c.ebx, 0);
    c.mov(c.eax, 0xff);
    c.add(c.al, 1);
    c.jmp(target, Code::T_NEAR);
    c.nop(100);
    c.L(target);
    c.xor_(c.edx, c.edx);
    c.nop(2, false);
    c.mov(c.eax, c.ebx);
    emit_report(c);
    c.lea(c.rdi, c.ptr[c.rip + target]);
    c.mov(c.dword[c.rdi], 0x90c3920f);  // setc bl; nop
    emit_read_cr(c, 3);
    emit_write_cr3(c);
    c.jmp(again, Code::T_NEAR);
  });
  EXPECT_EQ(guest.report(), 0u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(guest.report(), 1u);
}

// As a disk does when it reads a program into a page that held another one.
TEST_P(Conformance, CodeWrittenByTheMachineIsSeen) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([](Code& c) {
    Xbyak::Label again;
    c.L(again);
    c.mov(c.eax, 1);
    emit_report(c);
    emit_read_cr(c, 3);
    emit_write_cr3(c);
    c.jmp(again);
  });
  for (u32 i = 1; i < 5; ++i) {
    EXPECT_EQ(guest.report(), i);
    ASSERT_TRUE(guest.memory().store(Gpa{kCodeAt + 1}, i + 1));
  }
}

TEST_P(Conformance, SingleStepTrapsAfterEveryInstruction) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([&](Code& c) {
    c.push(0x102);
    c.popfq();
    c.mov(c.ecx, 1);
    c.mov(c.ecx, 2);
    c.nop();
    guest.set_gate(1, guest.here(c));
    c.mov(c.rax, c.qword[c.rsp]);
    emit_report(c);
    emit_iret(c);
  });
  const u64 first = guest.report();
  EXPECT_EQ(guest.report(), first + 5);
  EXPECT_EQ(guest.report(), first + 6);
}

TEST_P(Conformance, CpuidIsSane) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([](Code& c) {
    c.xor_(c.eax, c.eax);
    c.cpuid();
    c.mov(c.r8d, c.eax);
    c.mov(c.r9d, c.ebx);
    c.mov(c.eax, 1);
    c.cpuid();
    c.hlt();
  });
  guest.expect<HaltExit>();
  const VcpuState state = guest.vcpu().state();
  EXPECT_GE(state.gpr[8], 7u);
  EXPECT_NE(state.gpr[9], 0u);
  EXPECT_EQ(state.gpr[3] >> 24, 0u);  // initial APIC ID
  constexpr u32 kNeeded =
      1u << 0 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 8 | 1u << 9 | 1u << 15 | 1u << 24 | 1u << 25 | 1u << 26;
  EXPECT_EQ(state.gpr[2] & kNeeded, kNeeded);  // FPU TSC MSR PAE CX8 APIC CMOV FXSR SSE SSE2
}

TEST_P(Conformance, TimeStampCounterAdvances) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([](Code& c) {
    Xbyak::Label back;
    const auto read = [&] {
      c.rdtsc();
      c.shl(c.rdx, 32);
      c.or_(c.rax, c.rdx);
    };
    read();
    c.mov(c.rbx, c.rax);
    read();
    c.cmp(c.rax, c.rbx);
    c.seta(c.al);
    c.movzx(c.eax, c.al);
    emit_report(c);
  });
  EXPECT_EQ(guest.report(), 1u);
}

}  // namespace
}  // namespace bulkhead::engine
