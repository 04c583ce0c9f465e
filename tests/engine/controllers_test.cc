// IOAPIC and 8259s that an engine has itself.
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/engine/tiny_guest.h"

namespace bulkhead::engine {
namespace {

constexpr u32 kIoApic = 0xfec00000, kEoi = 0xb0, kSpurious = 0xf0;
constexpr u32 kLevelEntry = 1u << 15;
constexpr Gsi kPin{20};

void emit_write(Code& c, u32 address, u32 value) {
  c.mov(c.edx, address);
  c.mov(c.eax, value);
  c.mov(c.dword[c.rdx], c.eax);
}

// Reports 1 when the pin leads to vector 0x46, then 9 for each interrupt.
void waiting_guest(TinyGuest& guest, u32 entry) {
  guest.long_mode([&](Code& c) {
    emit_lapic_write(c, kSpurious, 0x1ff);
    emit_write(c, kIoApic, 0x11 + 2 * kPin.value);
    emit_write(c, kIoApic + 0x10, 0);
    emit_write(c, kIoApic, 0x10 + 2 * kPin.value);
    emit_write(c, kIoApic + 0x10, entry | 0x46);
    c.mov(c.eax, 1);
    emit_report(c);
    emit_idle(guest, c, {{0x46, 9}});
  });
}

#define BH_OWN_CONTROLLERS(guest)                                  \
  BH_CONFORMANCE_GUEST(guest);                                     \
  if (guest.partition().interrupt_controller() == nullptr)         \
    GTEST_SKIP() << GetParam().name << ": they are the machine's"; \
  InterruptController& controller = *guest.partition().interrupt_controller()

TEST_P(Conformance, ALineIsAnEdge) {
  BH_OWN_CONTROLLERS(guest);
  waiting_guest(guest, 0);
  EXPECT_EQ(guest.report(), 1u);
  for (int i = 0; i < 3; ++i) {
    controller.set_line(kPin, true);
    EXPECT_EQ(guest.report(), 9u);
    controller.set_line(kPin, false);
  }
}

TEST_P(Conformance, ALevelInterruptsUntilItIsDown) {
  BH_OWN_CONTROLLERS(guest);
  waiting_guest(guest, kLevelEntry);
  EXPECT_EQ(guest.report(), 1u);
  controller.set_line(kPin, true);
  EXPECT_EQ(guest.report(), 9u);
  EXPECT_EQ(guest.report(), 9u);
  controller.set_line(kPin, false);
}

TEST_P(Conformance, AnEventIsAnEdgeOfALine) {
  BH_OWN_CONTROLLERS(guest);
  const auto line = controller.line_by_event(kPin, InterruptController::Trigger::kEdge);
  ASSERT_TRUE(line) << line.error().message;
  EXPECT_EQ((*line)->ended(), -1);
  waiting_guest(guest, 0);
  EXPECT_EQ(guest.report(), 1u);
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(::eventfd_write((*line)->descriptor(), 1), 0);
    EXPECT_EQ(guest.report(), 9u);
  }
}

TEST_P(Conformance, AnEventRaisesALevelAndItsEndIsTold) {
  BH_OWN_CONTROLLERS(guest);
  const auto line = controller.line_by_event(kPin, InterruptController::Trigger::kLevel);
  ASSERT_TRUE(line) << line.error().message;
  waiting_guest(guest, kLevelEntry);
  EXPECT_EQ(guest.report(), 1u);
  eventfd_t times = 0;
  EXPECT_NE(::eventfd_read((*line)->ended(), &times), 0) << "nothing has ended yet";
  ASSERT_EQ(::eventfd_write((*line)->descriptor(), 1), 0);
  EXPECT_EQ(guest.report(), 9u);
  std::thread again{[&] {  // the line is down when the guest has ended its interrupt; before that it cannot rise
    pollfd ended{.fd = (*line)->ended(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(::poll(&ended, 1, 60'000), 1);
    EXPECT_EQ(::eventfd_read((*line)->ended(), &times), 0);
    EXPECT_EQ(::eventfd_write((*line)->descriptor(), 1), 0);
  }};
  EXPECT_EQ(guest.report(), 9u);
  again.join();
}

TEST_P(Conformance, ControllersMoveWithALineThatIsUp) {
  BH_OWN_CONTROLLERS(first);
  waiting_guest(first, kLevelEntry);
  EXPECT_EQ(first.report(), 1u);
  first.vcpu().kick();
  EXPECT_TRUE(std::holds_alternative<KickedExit>(first.vcpu().run()));
  auto state = controller.state();
  ASSERT_TRUE(state) << state.error().message;
  EXPECT_EQ(state->ioapic.entries[kPin.value] & 0xffff, kLevelEntry | 0x46);
  state->lines |= 1u << kPin.value;
  BH_CONFORMANCE_GUEST(second);
  waiting_guest(second, kLevelEntry);
  ASSERT_TRUE(second.vcpu().set_state(first.vcpu().state()));
  ASSERT_TRUE(second.partition().interrupt_controller()->set_state(*state));
  EXPECT_EQ(second.report(), 9u);
  const auto back = second.partition().interrupt_controller()->state();
  ASSERT_TRUE(back);
  EXPECT_EQ(back->pics, state->pics);
  EXPECT_EQ(back->lines, state->lines);
}

}  // namespace
}  // namespace bulkhead::engine
