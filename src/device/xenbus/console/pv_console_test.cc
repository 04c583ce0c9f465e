#include "device/xenbus/console/pv_console.h"

#include <gtest/gtest.h>

#include <array>
#include <mutex>
#include <thread>

#include "device/testing/fake_console.h"
#include "device/xenbus/console/console_backend.h"
#include "device/xenbus/testing/console_front.h"
#include "device/xenbus/testing/frontend.h"

namespace bulkhead::device::xenbus {
namespace {

using device::testing::FakeConsole;
using testing::ConsoleFront;
using testing::XenbusFrontend;
using testing::XenbusZone;

struct PvConsoleTest : ::testing::Test {
  void SetUp() override { ASSERT_TRUE(console.connect(page.data(), events, front.port)); }
  u64 bad() { return console.counters()[PvConsole::kBadIndexes].value(); }

  alignas(kPageSize) std::array<std::byte, kPageSize> page{};
  testing::FakeEvents events;
  FakeConsole host;
  PvConsole console{&host};
  ConsoleFront front{events, page.data()};
};

TEST_F(PvConsoleTest, BytesGoBothWays) {
  EXPECT_EQ(front.write("login: "), 7u);
  EXPECT_EQ(host.output, "login: ");
  host.type("root\n");
  EXPECT_EQ(front.read(), "root\n");
  EXPECT_GE(events.notifications(front.port), 2u);
}

TEST_F(PvConsoleTest, ManyTimesRoundTheRings) {
  std::string out, in, got;
  for (int i = 0; i < 2000; ++i) {
    const std::string line = "line " + std::to_string(i) + "\n";
    out += line;
    in += line;
    ASSERT_EQ(front.write(line), line.size());
    host.type(line);
    got += front.read();
  }
  EXPECT_EQ(host.output, out);
  EXPECT_EQ(got, in);
}

TEST_F(PvConsoleTest, AHostThatDoesNotReadHoldsTheGuest) {
  host.room = 100;
  const std::string text(5000, 'x');
  std::size_t written = front.write(text);
  EXPECT_EQ(written, 2048u);
  EXPECT_EQ(host.output.size(), 100u);
  written += front.write(std::string_view{text}.substr(written));
  EXPECT_EQ(written, 2148u);
  host.set_room(FakeConsole::kUnlimited);
  EXPECT_EQ(host.output.size(), 2148u);
  written += front.write(std::string_view{text}.substr(written));
  written += front.write(std::string_view{text}.substr(written));
  EXPECT_EQ(host.output, text);
  EXPECT_EQ(written, 5000u);
}

TEST_F(PvConsoleTest, AGuestThatDoesNotReadHoldsTheHost) {
  host.type(std::string(3000, 'y'));
  EXPECT_EQ(host.input.size(), 3000u - 1024u);
  EXPECT_EQ(front.read().size(), 1024u);
  EXPECT_EQ(front.read().size(), 1024u);
  EXPECT_EQ(front.read().size(), 3000u - 2048u);
  EXPECT_EQ(front.read(), "");
}

TEST_F(PvConsoleTest, WhatWasWrittenBeforeTheConnectionIsNotLost) {
  console.disconnect();
  front.write("early ");
  host.type("typed ");
  EXPECT_EQ(host.output, "");
  ASSERT_TRUE(console.connect(page.data(), events, front.port));
  EXPECT_EQ(host.output, "early ");
  EXPECT_EQ(front.read(), "typed ");
}

TEST_F(PvConsoleTest, NothingIsTouchedAfterADisconnect) {
  console.disconnect();
  const auto before = page;
  front.write("");
  host.type("late");
  EXPECT_EQ(page, before);
  EXPECT_FALSE(events.bound(front.port));
}

TEST_F(PvConsoleTest, SeveralVcpusAndATypistAtOnce) {
  std::atomic<bool> stop{false};
  std::thread storm{[&] {
    while (!stop) events.raise(front.port);
  }};
  std::size_t sent = 0;
  const std::string line(100, 'z');
  while (sent < 100000) sent += front.write(line);
  stop = true;
  storm.join();
  events.raise(front.port);
  EXPECT_EQ(host.output.size(), sent);
}

TEST(PvConsole, WithoutABackendOutputVanishes) {
  alignas(kPageSize) std::array<std::byte, kPageSize> page{};
  testing::FakeEvents events;
  PvConsole console{nullptr};
  ConsoleFront front{events, page.data()};
  ASSERT_TRUE(console.connect(page.data(), events, front.port));
  for (int i = 0; i < 10; ++i) EXPECT_EQ(front.write(std::string(2000, 'q')), 2000u);
}

// Bad guests.

TEST_F(PvConsoleTest, OutputIndexesThatRanAwayAreCountedAndGivenUp) {
  for (const u32 producer : {2049u, 0x8000'0000u, 0xffff'ffffu, 5000u}) {
    std::atomic_ref{front.rings->out_prod}.store(producer);
    events.raise(front.port);
    EXPECT_EQ(std::atomic_ref{front.rings->out_cons}.load(), producer);
  }
  EXPECT_EQ(bad(), 4u);
  EXPECT_EQ(host.output, "");
  front.write("sane again");
  EXPECT_EQ(host.output, "sane again");
}

TEST_F(PvConsoleTest, InputIndexesThatMakeNoSenseStopInput) {
  std::atomic_ref{front.rings->in_cons}.store(5);
  host.type("abc");
  EXPECT_EQ(bad(), 1u);
  EXPECT_EQ(host.input, "abc");
  std::atomic_ref{front.rings->in_cons}.store(0);
  events.raise(front.port);
  EXPECT_EQ(front.read(), "abc");
}

TEST_F(PvConsoleTest, IndexesMayWrapAround32Bits) {
  for (u32* const index :
       {&front.rings->in_cons, &front.rings->in_prod, &front.rings->out_cons, &front.rings->out_prod})
    std::atomic_ref{*index}.store(0xffff'fffa);
  front.write("over the edge");
  host.type("and back again");
  EXPECT_EQ(host.output, "over the edge");
  EXPECT_EQ(front.read(), "and back again");
  EXPECT_EQ(bad(), 0u);
}

TEST_F(PvConsoleTest, ARunningProducerStaysWithinThePage) {
  std::atomic<bool> stop{false};
  std::thread vandal{[&] {
    for (u32 i = 0; !stop; ++i)
      for (u32* const index :
           {&front.rings->in_cons, &front.rings->in_prod, &front.rings->out_cons, &front.rings->out_prod})
        std::atomic_ref{*index}.store(i * 0x9e37'79b9);
  }};
  for (int i = 0; i < 3000; ++i) {
    events.raise(front.port);
    host.type("x");
    host.output.clear();
  }
  stop = true;
  vandal.join();
}

TEST_F(PvConsoleTest, APortThatIsNotThereIsRefused) {
  PvConsole other{nullptr};
  EXPECT_FALSE(other.connect(page.data(), events, 4000));
  EXPECT_FALSE(other.connect(page.data(), events, front.port));  // bound already
}

struct XenConsoleTest : ::testing::Test {
  void SetUp() override {
    ASSERT_TRUE(zone.bus.add(1, std::make_unique<XenConsoleBackend>(&host, zone.grants, zone.events, "dev.example")));
  }
  void connect() {
    front.say("ring-ref", page);
    front.say("port", guest.port);
    front.say(State::kInitialised);
    ASSERT_TRUE(front.await(State::kConnected));
    front.say(State::kConnected);
  }
  FakeConsole host;
  XenbusZone zone;
  XenbusFrontend front{zone, "console", 1};
  const u32 page = zone.grants.grant();
  ConsoleFront guest{zone.events, zone.grants.page(page)};
};

TEST_F(XenConsoleTest, SaysWhatItIs) {
  EXPECT_EQ(front.read("protocol"), "vt100");
  EXPECT_EQ(front.read("name"), "dev.example");
  const auto node = [&](const char* name) { return zone.store.read(front.path + "/" + name); };
  EXPECT_EQ(node("type"), "xenconsoled");
  EXPECT_EQ(node("output"), "pty");
  EXPECT_EQ(node("limit"), "1048576");
  EXPECT_EQ(node("tty"), "");
}

TEST_F(XenConsoleTest, ConnectsMovesBytesAndCloses) {
  connect();
  guest.write("hvc1");
  EXPECT_EQ(host.output, "hvc1");
  host.type("in");
  EXPECT_EQ(guest.read(), "in");
  ASSERT_TRUE(front.close());
  EXPECT_EQ(zone.grants.mapped(), 0u);
  EXPECT_FALSE(zone.events.bound(guest.port));
}

TEST_F(XenConsoleTest, UnplugsAndReconnects) {
  connect();
  front.say(State::kInitialising);
  ASSERT_TRUE(front.await(State::kInitWait));
  connect();
  guest.write("again");
  EXPECT_EQ(host.output, "again");
  auto done = zone.begin_unplug("console", 1, Unplug::kAsk);
  ASSERT_TRUE(front.await(State::kClosing));
  front.say(State::kClosed);
  EXPECT_EQ(done.get(), Unplugged::kGone);
}

TEST_F(XenConsoleTest, BadSetupsAreRefused) {
  const u32 read_only = zone.grants.grant(false);
  const std::pair<std::string, std::string> wrong[] = {{"ring-ref", "x"},
                                                       {"ring-ref", "4000"},
                                                       {"ring-ref", std::to_string(read_only)},
                                                       {"port", "-1"},
                                                       {"port", "4000"}};
  for (const auto& [name, value] : wrong) {
    front.say("ring-ref", page);
    front.say("port", guest.port);
    front.say(name, value);
    front.say(State::kInitialised);
    ASSERT_TRUE(front.await(State::kClosing)) << name << value;
    EXPECT_EQ(zone.grants.mapped(), 0u);
    front.say(State::kClosed);
    ASSERT_TRUE(front.await(State::kClosed));
    front.say(State::kInitialising);
    ASSERT_TRUE(front.await(State::kInitWait));
  }
  connect();
}

}  // namespace
}  // namespace bulkhead::device::xenbus
