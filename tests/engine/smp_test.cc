// Two vCPUs on two threads.
#include "tests/engine/tiny_guest.h"

namespace bulkhead::engine {
namespace {

constexpr u32 kIcrLow = 0x300, kIcrHigh = 0x310, kEoi = 0xb0, kSpurious = 0xf0;
constexpr int kCounter = kDataAt, kFlag = kDataAt + 64, kDone = kDataAt + 128;

void emit_wait_for(Code& c, int address, int value) {
  Xbyak::Label wait;
  c.L(wait);
  c.pause();
  c.cmp(c.dword[c.r15 + static_cast<int>(address)], value);
  c.jne(wait);
}

TEST_P(Conformance, LockedIncrementsOfTwoVcpusAddUp) {
  BH_CONFORMANCE_GUEST(guest, 2);
  constexpr int kTimes = 20000;
  const auto count = [&](Code& c, bool report) {
    Xbyak::Label again;
    c.mov(c.ecx, kTimes);
    c.L(again);
    c.lock();
    c.inc(c.dword[c.r15 + static_cast<int>(kCounter)]);
    c.mov(c.eax, 1);
    c.lock();
    c.xadd(c.dword[c.r15 + static_cast<int>(kCounter + 8)], c.eax);
    c.dec(c.ecx);
    c.jnz(again);
    c.lock();
    c.inc(c.dword[c.r15 + static_cast<int>(kDone)]);
    if (!report) {
      c.cli();
      c.hlt();
      return;
    }
    emit_wait_for(c, kDone, 2);
    c.mov(c.eax, c.dword[c.r15 + static_cast<int>(kCounter)]);
    emit_report(c);
    c.mov(c.eax, c.dword[c.r15 + static_cast<int>(kCounter + 8)]);
    emit_report(c);
  };
  guest.long_mode([&](Code& c) { count(c, true); });
  guest.long_mode([&](Code& c) { count(c, false); }, 1);
  guest.start_thread(1);
  EXPECT_EQ(guest.report(), 2u * kTimes);
  EXPECT_EQ(guest.report(), 2u * kTimes);
}

TEST_P(Conformance, UnalignedLockedAccessAcrossPagesIsAtomic) {
  BH_NEEDS(Need::kEveryInstruction);
  BH_CONFORMANCE_GUEST(guest, 2);
  constexpr int kTimes = 2000;
  constexpr int kSplit = kDataAt + 0x1000 - 2;
  const auto count = [&](Code& c, bool report) {
    Xbyak::Label again;
    c.mov(c.ecx, kTimes);
    c.L(again);
    c.lock();
    c.inc(c.dword[c.r15 + static_cast<int>(kSplit)]);
    c.dec(c.ecx);
    c.jnz(again);
    c.lock();
    c.inc(c.dword[c.r15 + static_cast<int>(kDone)]);
    if (!report) {
      c.cli();
      c.hlt();
      return;
    }
    emit_wait_for(c, kDone, 2);
    c.mov(c.eax, c.dword[c.r15 + static_cast<int>(kSplit)]);
    emit_report(c);
  };
  guest.long_mode([&](Code& c) { count(c, true); });
  guest.long_mode([&](Code& c) { count(c, false); }, 1);
  guest.start_thread(1);
  EXPECT_EQ(guest.report(), 2u * kTimes);
}

// vCPU 1 waits in real mode for INIT and SIPI, as after power-on.
TEST_P(Conformance, InitAndSipiStartAnotherVcpu) {
  BH_CONFORMANCE_GUEST(guest, 2);
  const u8 trampoline[] = {0x8c, 0xc8,                    // mov ax,cs
                           0x31, 0xdb, 0x8e, 0xdb,        // xor bx,bx; mov ds,bx
                           0xa3, 0x00, 0x60,              // mov [0x6000],ax
                           0xc6, 0x06, 0x02, 0x60, 0x01,  // mov byte [0x6002],1
                           0xfa, 0xf4};                   // cli; hlt
  std::memcpy(guest.host(0x5000), trampoline, sizeof trampoline);
  guest.long_mode([](Code& c) {
    emit_lapic_write(c, kSpurious, 0x1ff);
    emit_lapic_write(c, kIcrHigh, 1u << 24);
    emit_lapic_write(c, kIcrLow, 0x4500);
    emit_lapic_write(c, kIcrHigh, 1u << 24);
    emit_lapic_write(c, kIcrLow, 0x4605);
    emit_wait_for(c, 0x6000, 0x10500);
    c.mov(c.eax, c.dword[c.r15 + 0x6000]);
    emit_report(c);
  });
  guest.start_thread(1);
  EXPECT_EQ(guest.report(), 0x10500u);
}

TEST_P(Conformance, InterprocessorInterrupt) {
  BH_CONFORMANCE_GUEST(guest, 2);
  guest.long_mode([](Code& c) {
    emit_lapic_write(c, kSpurious, 0x1ff);
    emit_wait_for(c, kFlag, 1);  // the other one is ready
    emit_lapic_write(c, kIcrHigh, 1u << 24);
    emit_lapic_write(c, kIcrLow, 0x4051);
    emit_wait_for(c, kFlag, 2);
    c.mov(c.eax, 8);
    emit_report(c);
  });
  guest.long_mode(
      [&](Code& c) {
        Xbyak::Label idle;
        emit_lapic_write(c, kSpurious, 0x1ff);
        c.mov(c.dword[c.r15 + static_cast<int>(kFlag)], 1);
        c.sti();
        c.L(idle);
        c.hlt();
        c.jmp(idle);
        guest.set_gate(0x51, guest.here(c));
        c.mov(c.dword[c.r15 + static_cast<int>(kFlag)], 2);
        emit_lapic_write(c, kEoi, 0);
        emit_iret(c);
      },
      1);
  guest.start_thread(1);
  EXPECT_EQ(guest.report(), 8u);
}

// vCPU 0 changes a function that vCPU 1 calls all the time, then interrupts it: from the interrupt's acknowledgement
// on, the old code must not run any more [SDM-3A "Handling Self- and Cross-Modifying Code"].
TEST_P(Conformance, CrossModifyingCode) {
  BH_NEEDS(Need::kModifiedCode);
  BH_CONFORMANCE_GUEST(guest, 2);
  constexpr int kRounds = 200;
  const u64 function = kCodeAt + 0x8000;
  const u8 body[] = {0xb8, 0, 0, 0, 0, 0xc3};  // mov eax,0; ret
  std::memcpy(guest.host(function), body, sizeof body);
  guest.long_mode([&](Code& c) {
    Xbyak::Label round, acknowledged, seen;
    emit_lapic_write(c, kSpurious, 0x1ff);
    emit_wait_for(c, kCounter, 1);  // the other one is ready
    c.mov(c.ebx, 1);
    c.L(round);
    c.mov(c.dword[c.r15 + static_cast<int>(function + 1)], c.ebx);
    emit_lapic_write(c, kIcrHigh, 1u << 24);
    emit_lapic_write(c, kIcrLow, 0x4052);
    c.L(acknowledged);
    c.pause();
    c.cmp(c.dword[c.r15 + static_cast<int>(kFlag)], c.ebx);
    c.jne(acknowledged);
    c.inc(c.ebx);
    c.cmp(c.ebx, kRounds);
    c.jne(round);
    c.mov(c.eax, c.dword[c.r15 + static_cast<int>(kDone)]);
    emit_report(c);
  });
  guest.long_mode(
      [&](Code& c) {
        Xbyak::Label again;
        emit_lapic_write(c, kSpurious, 0x1ff);
        c.mov(c.dword[c.r15 + kCounter], 1);
        c.sti();
        c.mov(c.ebx, static_cast<u32>(function));
        c.L(again);
        c.call(c.rbx);
        c.mov(c.esi, c.eax);
        c.jmp(again);
        guest.set_gate(0x52, guest.here(c));
        c.push(c.rax);
        c.push(c.rdx);
        c.call(c.rbx);
        c.mov(c.ecx, c.eax);
        emit_lapic_write(c, kEoi, 0);
        c.mov(c.dword[c.r15 + static_cast<int>(kFlag)], c.ecx);  // what the new code says
        c.pop(c.rdx);
        c.pop(c.rax);
        emit_iret(c);
      },
      1);
  guest.start_thread(1);
  EXPECT_EQ(guest.report(), 0u);
}

}  // namespace
}  // namespace bulkhead::engine
