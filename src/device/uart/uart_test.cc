#include "device/uart/uart.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "device/testing/fake_console.h"
#include "device/testing/hostile.h"
#include "device/uart/registers.h"

namespace bulkhead::device {
namespace {
using namespace uart;
using testing::FakeConsole;

struct UartTest : ::testing::Test {
  u8 in(unsigned index) { return static_cast<u8>(device.ports().read(index, AccessSize::k1).value); }
  void out(unsigned index, unsigned value) { device.ports().write(index, value, AccessSize::k1); }
  void say(std::string_view text) {
    for (const char c : text) out(kData, static_cast<u8>(c));
  }
  std::string receive() {
    std::string text;
    while (in(kLineStatus)&kDataReady) text += static_cast<char>(in(kData));
    return text;
  }
  u8 id() { return in(kInterruptId) & 0x0f; }

  FakeConsole console;
  testing::FakeLine line;
  Uart device{console, line};
};

TEST_F(UartTest, StartsIdle) {
  EXPECT_EQ(in(kLineStatus), kThrEmpty | kTransmitterEmpty);
  EXPECT_EQ(in(kInterruptId), kIdNone);
  EXPECT_EQ(in(kModemStatus), kCts | kDsr | kDcd);
  EXPECT_EQ(in(kInterruptEnable), 0);
  EXPECT_FALSE(line.level);
}

TEST_F(UartTest, SendsWhatIsWritten) {
  say("hello");
  EXPECT_EQ(console.output, "hello");
  EXPECT_EQ(in(kLineStatus), kThrEmpty | kTransmitterEmpty);
}

TEST_F(UartTest, ReceivesWhatIsTyped) {
  out(kFifoControl, 0x07);
  console.type("ls -l\n");
  EXPECT_EQ(receive(), "ls -l\n");
  EXPECT_EQ(in(kData), 0) << "an empty receiver";
}

TEST_F(UartTest, TakesFromTheHostOnlyWhatFits) {
  out(kFifoControl, 0x07);
  console.type(std::string(100, 'x'));
  EXPECT_EQ(console.input.size(), 84u);
  EXPECT_EQ(receive(), std::string(100, 'x'));
}

TEST_F(UartTest, LooksLikeA16550AToAProbe) {
  out(kInterruptEnable, 0xff);
  EXPECT_EQ(in(kInterruptEnable), 0x0f);
  out(kInterruptEnable, 0);
  out(kModemControl, kLoop | kOut2 | kRts);
  EXPECT_EQ(in(kModemStatus) & 0xf0, kDcd | kCts);
  out(kModemControl, 0);
  EXPECT_EQ(in(kInterruptId), 0x01);
  out(kFifoControl, kFifoEnable);
  EXPECT_EQ(in(kInterruptId), 0xc1);
  out(kFifoControl, kFifoEnable | 0x20);  // the 64-byte FIFO of a 16750
  EXPECT_EQ(in(kInterruptId) & 0xe0, 0xc0);
  for (const unsigned value : {0x55u, 0xaau}) {
    out(kScratch, value);
    EXPECT_EQ(in(kScratch), value);
  }
}

TEST_F(UartTest, DivisorLatchHidesDataAndEnable) {
  out(kInterruptEnable, 0x05);
  out(kLineControl, 0x83);
  out(0, 0x34);
  out(1, 0x12);
  EXPECT_EQ(in(0), 0x34);
  EXPECT_EQ(in(1), 0x12);
  EXPECT_EQ(in(kLineControl), 0x83);
  out(kLineControl, 0x03);
  EXPECT_EQ(in(kInterruptEnable), 0x05);
  EXPECT_EQ(console.output, "");
}

TEST_F(UartTest, EnablingThrEmptyRaisesItAndReadingItClearsIt) {
  out(kInterruptEnable, kEnableThrEmpty);
  EXPECT_TRUE(line.level);
  EXPECT_EQ(id(), kIdThrEmpty);
  EXPECT_FALSE(line.level);
  EXPECT_EQ(id(), kIdNone);
  out(kInterruptEnable, kEnableThrEmpty);
  EXPECT_FALSE(line.level) << "it was enabled already";
}

TEST_F(UartTest, EverySentByteIsAnEdge) {
  out(kInterruptEnable, kEnableThrEmpty);
  const u64 before = line.rises;
  say("abc");
  EXPECT_EQ(line.rises, before + 3);
  EXPECT_EQ(id(), kIdThrEmpty);
}

TEST_F(UartTest, PrioritiesAreLineStatusReceivedThrEmptyModem) {
  out(kModemControl, kLoop);  // deltas: everything fell
  say("ab");                  // without FIFOs the second byte overruns
  out(kInterruptEnable, 0x0f);
  EXPECT_EQ(id(), kIdLineStatus);
  EXPECT_TRUE(in(kLineStatus)&kOverrun);
  EXPECT_EQ(id(), kIdReceived);
  EXPECT_EQ(in(kData), 'b');
  EXPECT_EQ(id(), kIdThrEmpty);
  EXPECT_EQ(id(), kIdModemStatus);
  EXPECT_NE(in(kModemStatus) & 0x0f, 0);
  EXPECT_EQ(id(), kIdNone);
  EXPECT_FALSE(line.level);
}

TEST_F(UartTest, BelowTheTriggerLevelItIsATimeout) {
  out(kFifoControl, 0xc1);  // 14 bytes
  out(kInterruptEnable, kEnableReceived);
  console.type("abc");
  EXPECT_TRUE(line.level);
  EXPECT_EQ(id(), kIdTimeout);
  console.type("defghijklmn");
  EXPECT_EQ(id(), kIdReceived);
  EXPECT_EQ(in(kData), 'a');
  EXPECT_EQ(id(), kIdTimeout);
  EXPECT_EQ(receive(), "bcdefghijklmn");
  EXPECT_FALSE(line.level);
}

TEST_F(UartTest, LoopbackKeepsBytesInside) {
  out(kFifoControl, 0x07);
  out(kModemControl, kLoop | kDtr | kOut1);
  EXPECT_EQ(in(kModemStatus) & 0xf0, kDsr | kRing);
  say("inside");
  console.type("outside");
  EXPECT_EQ(receive(), "inside");
  EXPECT_EQ(console.output, "");
  out(kModemControl, 0);
  EXPECT_TRUE(in(kModemStatus)&kTrailingRing);
  EXPECT_EQ(receive(), "outside");
}

TEST_F(UartTest, ClearingTheReceiverKeepsOutput) {
  out(kFifoControl, 0x01);
  console.type("abc");
  console.room = 0;
  say("x");
  out(kFifoControl, 0x07);
  EXPECT_FALSE(in(kLineStatus)&kDataReady);
  console.set_room(FakeConsole::kUnlimited);
  EXPECT_EQ(console.output, "x");
}

TEST_F(UartTest, ASlowHostHoldsThrEmptyBack) {
  console.room = 0;
  std::size_t sent = 0;
  for (; (in(kLineStatus)&kThrEmpty) != 0; ++sent) say("x");
  EXPECT_EQ(sent, Uart::kOutputLimit - Uart::kFifoSize + 1);
  EXPECT_EQ(in(kLineStatus)&kTransmitterEmpty, 0);
  out(kInterruptEnable, kEnableThrEmpty);
  EXPECT_FALSE(line.level);
  console.set_room(FakeConsole::kUnlimited);
  EXPECT_TRUE(line.level);
  EXPECT_EQ(in(kLineStatus), kThrEmpty | kTransmitterEmpty);
  EXPECT_EQ(console.output.size(), sent);
  EXPECT_EQ(device.dropped(), 0u);
}

TEST_F(UartTest, PartlyTakenOutputKeepsItsOrder) {
  console.room = 3;
  say("abcdefg");
  console.set_room(2);
  say("hi");
  console.set_room(FakeConsole::kUnlimited);
  EXPECT_EQ(console.output, "abcdefghi");
}

TEST_F(UartTest, ResetForgetsAllButWaitingOutput) {
  console.room = 0;
  say("last words");
  console.type("x");
  out(kInterruptEnable, 0x0f);
  out(kLineControl, 0x9f);
  out(kModemControl, 0x1f);
  out(kScratch, 1);
  device.reset();
  EXPECT_FALSE(line.level);
  EXPECT_EQ(in(kLineControl), 0);
  EXPECT_EQ(in(kModemControl), 0);
  EXPECT_EQ(in(kInterruptEnable), 0);
  EXPECT_EQ(in(kScratch), 0);
  EXPECT_EQ(in(kLineStatus), kThrEmpty);
  console.set_room(FakeConsole::kUnlimited);
  EXPECT_EQ(console.output, "last words");
}

TEST_F(UartTest, AFloodIsBoundedAndCounted) {
  console.room = 0;
  for (std::size_t i = 0; i < Uart::kOutputLimit + 1000; ++i) say("x");
  EXPECT_EQ(device.dropped(), 1000u);
  EXPECT_LE(console.writes, 2u);
  console.set_room(FakeConsole::kUnlimited);
  EXPECT_EQ(console.output.size(), Uart::kOutputLimit);
}

TEST_F(UartTest, LoopbackOverrunKeepsAFullFifo) {
  out(kFifoControl, 0x01);
  out(kModemControl, kLoop);
  say("0123456789abcdefGH");
  EXPECT_TRUE(in(kLineStatus)&kOverrun);
  EXPECT_FALSE(in(kLineStatus)&kOverrun) << "cleared by reading";
  EXPECT_EQ(receive(), "0123456789abcdef");
}

TEST_F(UartTest, WritesToStatusRegistersDoNothing) {
  const u8 line_status = in(kLineStatus), modem_status = in(kModemStatus);
  out(kLineStatus, 0xff);
  out(kModemStatus, 0xff);
  EXPECT_EQ(in(kLineStatus), line_status);
  EXPECT_EQ(in(kModemStatus), modem_status);
}

TEST_F(UartTest, FifoBitsNeedTheFifosOn) {
  out(kFifoControl, 0xc0);
  out(kFifoControl, 0x00);
  out(kInterruptEnable, kEnableReceived);
  console.type("ab");
  EXPECT_EQ(id(), kIdReceived) << "trigger level is one byte";
}

TEST_F(UartTest, AnswersEveryWidthEverywhere) {
  console.input = std::string(1000, 'y');
  testing::sweep(device.ports(), Uart::kPorts);
}

TEST_F(UartTest, SurvivesBabble) {
  testing::babble(device.ports(), Uart::kPorts, 7, 100'000, [&](u64 random) {
    if (random % 50 == 0) console.type("some input");
    if (random % 70 == 0) console.set_room(random % 40);
    if (random % 5000 == 0) device.reset();
    console.output.clear();
  });
}

TEST_F(UartTest, CallbacksMayComeOnAnotherThread) {
  class Shared final : public ConsoleBackend {
   public:
    std::size_t write(std::span<const std::byte> data) override { return flip.exchange(!flip) ? data.size() : 0; }
    std::size_t read(std::span<std::byte> out) override { return flip.exchange(!flip) ? out.size() : 0; }
    void set_callbacks(std::function<void()> r, std::function<void()> w) override { readable = r, writable = w; }
    std::function<void()> readable, writable;
    std::atomic<bool> flip = false;
  } shared;
  {
    Uart both{shared, line};
    {
      std::jthread host{[&] {
        for (int i = 0; i < 2000; ++i) shared.readable(), shared.writable();
      }};
      testing::babble(both.ports(), Uart::kPorts, 3, 20'000, [](u64) {});
    }
  }
}

}  // namespace
}  // namespace bulkhead::device
