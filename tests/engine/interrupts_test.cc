// Interrupts from outside, from the LAPIC's timer, and the ways out of a halt.
#include "tests/engine/tiny_guest.h"

namespace bulkhead::engine {
namespace {

constexpr u32 kEoi = 0xb0, kSpurious = 0xf0, kLvtTimer = 0x320, kInitialCount = 0x380, kDivide = 0x3e0;

void emit_lapic_on(Code& c) { emit_lapic_write(c, kSpurious, 0x1ff); }
Msi fixed(u8 vector, u8 destination = 0) { return {0xfee00000 | u32{destination} << 12, vector}; }

TEST_P(Conformance, MessageWakesAHaltedVcpu) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([&](Code& c) {
    emit_lapic_on(c);
    c.mov(c.eax, 1);
    emit_report(c);
    emit_idle(guest, c, {{0x40, 2}});
  });
  EXPECT_EQ(guest.report(), 1u);
  for (int i = 0; i < 20; ++i) {
    std::thread sender{[&] { guest.partition().send(fixed(0x40)); }};
    EXPECT_EQ(guest.report(), 2u);
    sender.join();
  }
}

TEST_P(Conformance, NmiIsTakenWithInterruptsOff) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([&](Code& c) {
    c.mov(c.eax, 1);
    emit_report(c);
    c.cli();
    Xbyak::Label loop;
    c.L(loop);
    c.jmp(loop);
    guest.set_gate(2, guest.here(c));
    c.mov(c.eax, 2);
    emit_report(c);
    emit_iret(c);
  });
  EXPECT_EQ(guest.report(), 1u);
  std::thread sender{[&] { guest.partition().inject_nmi(0); }};
  EXPECT_EQ(guest.report(), 2u);
  sender.join();
}

TEST_P(Conformance, InterruptInterruptsABusyGuest) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([&](Code& c) {
    emit_lapic_on(c);
    c.mov(c.eax, 1);
    emit_report(c);
    c.sti();
    Xbyak::Label busy;
    c.L(busy);
    c.inc(c.rbx);
    c.jmp(busy);
    guest.set_gate(0x41, guest.here(c));
    c.mov(c.eax, 3);
    emit_report(c);
    emit_lapic_write(c, kEoi, 0);
    emit_iret(c);
  });
  EXPECT_EQ(guest.report(), 1u);
  for (int i = 0; i < 5; ++i) {
    std::thread sender{[&] { guest.partition().send(fixed(0x41)); }};
    EXPECT_EQ(guest.report(), 3u);
    sender.join();
  }
}

TEST_P(Conformance, HigherVectorGoesFirst) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([&](Code& c) {
    emit_lapic_on(c);
    c.mov(c.eax, 1);
    emit_report(c);
    emit_idle(guest, c, {{0x50, 0x50}, {0x90, 0x90}});
  });
  EXPECT_EQ(guest.report(), 1u);
  guest.partition().send(fixed(0x50));
  guest.partition().send(fixed(0x90));
  EXPECT_EQ(guest.report(), 0x90u);
  EXPECT_EQ(guest.report(), 0x50u);
}

TEST_P(Conformance, NothingIsTakenBehindSti) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([&](Code& c) {
    emit_lapic_on(c);
    c.mov(c.eax, 1);
    emit_report(c);
    c.sti();
    c.mov(c.ebx, 7);  // in STI's shadow
    c.mov(c.ebx, 8);
    Xbyak::Label idle;
    c.L(idle);
    c.hlt();
    c.jmp(idle);
    guest.set_gate(0x42, guest.here(c));
    c.mov(c.eax, c.ebx);
    emit_report(c);
  });
  EXPECT_EQ(guest.report(), 1u);
  guest.partition().send(fixed(0x42));
  EXPECT_GE(guest.report(), 7u);
}

class OneVector final : public ExtIntSource {
 public:
  std::optional<u8> acknowledge() override {
    ++acknowledged;
    partition->set_extint(false);
    return u8{0x30};
  }
  Partition* partition = nullptr;
  std::atomic<int> acknowledged{0};
};

TEST_P(Conformance, InterruptOfThe8259) {
  OneVector source;
  BH_CONFORMANCE_GUEST(guest);
  if (guest.partition().interrupt_controller() != nullptr) GTEST_SKIP() << GetParam().name << ": the 8259s are its own";
  source.partition = &guest.partition();
  guest.partition().set_extint_source(&source);
  guest.long_mode([&](Code& c) {
    emit_lapic_on(c);
    emit_lapic_write(c, 0x350, 0x700);  // LINT0: ExtINT
    c.mov(c.eax, 1);
    emit_report(c);
    emit_idle(guest, c, {{0x30, 4}});
  });
  EXPECT_EQ(guest.report(), 1u);
  guest.partition().set_extint(true);
  EXPECT_EQ(guest.report(), 4u);
  EXPECT_EQ(source.acknowledged, 1);
}

TEST_P(Conformance, EndOfALevelTriggeredInterruptIsTold) {
  BH_CONFORMANCE_GUEST(guest);
  if (guest.partition().interrupt_controller() != nullptr) GTEST_SKIP() << GetParam().name << ": the IOAPIC is its own";
  std::atomic<int> ended{0};
  guest.partition().set_eoi_handler([&](u8 vector) { ended += vector == 0x43; });
  guest.long_mode([&](Code& c) {
    emit_lapic_on(c);
    c.mov(c.eax, 1);
    emit_report(c);
    emit_idle(guest, c, {{0x43, 5}});
  });
  EXPECT_EQ(guest.report(), 1u);
  guest.partition().send({0xfee00000, 0x43 | 1u << 14 | 1u << 15});
  EXPECT_EQ(guest.report(), 5u);
  guest.partition().send({0xfee00000, 0x43 | 1u << 14 | 1u << 15});
  EXPECT_EQ(guest.report(), 5u);
  EXPECT_GE(ended, 1);
}

void timer_guest(TinyGuest& guest, u32 lvt, u32 count) {
  guest.long_mode([&](Code& c) {
    emit_lapic_on(c);
    emit_lapic_write(c, kDivide, 0xb);
    emit_lapic_write(c, kLvtTimer, lvt);
    emit_lapic_write(c, kInitialCount, count);
    emit_idle(guest, c, {{0x44, 6}});
  });
}

TEST_P(Conformance, LapicTimerOneShot) {
  BH_CONFORMANCE_GUEST(guest);
  timer_guest(guest, 0x44, 100000);
  EXPECT_EQ(guest.report(), 6u);
}

TEST_P(Conformance, LapicTimerPeriodic) {
  BH_CONFORMANCE_GUEST(guest);
  timer_guest(guest, 0x20044, 100000);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(guest.report(), 6u);
}

TEST_P(Conformance, LapicTimerDeadline) {
  BH_CONFORMANCE_GUEST(guest);
  const auto model = make_cpu_model("host", 1);
  if (!model->has(1, 0, 'c', 24)) GTEST_SKIP() << "the CPU model has no TSC deadline";
  guest.long_mode([&](Code& c) {
    emit_lapic_on(c);
    emit_lapic_write(c, kLvtTimer, 0x40044);
    c.rdtsc();
    c.add(c.eax, 1000000);
    c.adc(c.edx, 0);
    c.mov(c.ecx, 0x6e0);
    c.wrmsr();
    emit_idle(guest, c, {{0x44, 6}});
  });
  EXPECT_EQ(guest.report(), 6u);
}

TEST_P(Conformance, KickEndsARun) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([](Code& c) {
    Xbyak::Label busy;
    c.L(busy);
    c.jmp(busy);
  });
  std::thread kicker{[&] { guest.vcpu().kick(); }};
  EXPECT_TRUE(std::holds_alternative<KickedExit>(guest.vcpu().run()));
  kicker.join();
}

TEST_P(Conformance, KickEndsAHalt) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([&](Code& c) {
    emit_lapic_on(c);
    c.mov(c.eax, 1);
    emit_report(c);
    emit_idle(guest, c, {{0x45, 7}});
  });
  EXPECT_EQ(guest.report(), 1u);
  std::thread kicker{[&] { guest.vcpu().kick(); }};
  EXPECT_TRUE(std::holds_alternative<KickedExit>(guest.vcpu().run()));
  kicker.join();
  guest.partition().send(fixed(0x45));
  EXPECT_EQ(guest.report(), 7u);
}

TEST_P(Conformance, KickBeforeARunCounts) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([](Code& c) {
    Xbyak::Label busy;
    c.L(busy);
    c.jmp(busy);
  });
  guest.vcpu().kick();
  EXPECT_TRUE(std::holds_alternative<KickedExit>(guest.vcpu().run()));
}

}  // namespace
}  // namespace bulkhead::engine
