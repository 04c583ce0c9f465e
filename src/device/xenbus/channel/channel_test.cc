#include "device/xenbus/channel/channel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <thread>

#include "device/testing/fake_console.h"
#include "device/xenbus/testing/frontend.h"
#include "guest/agent/vchan_server.h"

namespace bulkhead::device::xenbus {
namespace {

using agent::VchanServer;
using device::testing::FakeConsole;
using testing::XenbusZone;

constexpr char kDirectory[] = "/local/domain/7/data/bulkhead/agent";

// A host end that hands back what it is given, and stops to take when it has much.
class Echo final : public ConsoleBackend {
 public:
  std::size_t write(std::span<const std::byte> data) override {
    const std::size_t taken = std::min(data.size(), kMost - held_.size());
    held_.insert(held_.end(), data.begin(), data.begin() + static_cast<std::ptrdiff_t>(taken));
    if (taken > 0) readable_();
    return taken;
  }
  std::size_t read(std::span<std::byte> out) override {
    const std::size_t given = std::min(out.size(), held_.size());
    std::copy_n(held_.begin(), given, out.begin());
    held_.erase(held_.begin(), held_.begin() + static_cast<std::ptrdiff_t>(given));
    if (given > 0) writable_();
    return given;
  }
  void set_callbacks(std::function<void()> readable, std::function<void()> writable) override {
    readable_ = std::move(readable);
    writable_ = std::move(writable);
  }
  void guest_open(bool open) override { opens += open ? "o" : "c"; }

  static constexpr std::size_t kMost = 10'000;
  std::string opens;

 private:
  std::vector<std::byte> held_;
  std::function<void()> readable_ = [] {}, writable_ = [] {};
};

// The agent's end, which sleeps only as the layout allows.
struct Server {
  explicit Server(XenbusZone& of)
      : zone{of}, references{zone.grants.grant_run(VchanServer::kPages)}, port{zone.events.allocate()} {}
  void publish() {
    zone.store.remove(std::string{kDirectory} + "/event-channel");
    zone.store.write(std::string{kDirectory} + "/ring-ref", std::to_string(references[0]));
    zone.store.write(std::string{kDirectory} + "/event-channel", std::to_string(port));
  }
  void send(std::string_view text) {
    while (!text.empty()) {
      const u64 seen = zone.events.notifications(port);
      bool tell = false;
      const u32 sent = ends.write(text.data(), static_cast<u32>(text.size()), tell);
      if (tell) zone.events.raise(port);
      text.remove_prefix(sent);
      if (sent > 0) continue;
      ends.want_room();
      if (ends.room() == 0) {
        ASSERT_TRUE(zone.events.await(port, seen));
      }
    }
  }
  std::string receive(std::size_t size) {
    std::string text(size, 0);
    for (std::size_t done = 0; done < size;) {
      const u64 seen = zone.events.notifications(port);
      bool tell = false;
      const u32 got = ends.read(&text[done], static_cast<u32>(size - done), tell);
      if (tell) zone.events.raise(port);
      done += got;
      if (got > 0) continue;
      ends.want_bytes();
      if (ends.used() == 0 && !zone.events.await(port, seen)) return "nothing came";
    }
    return text;
  }
  vchan_interface& shared() { return *reinterpret_cast<vchan_interface*>(zone.grants.page(references[0])); }

  XenbusZone& zone;
  const std::vector<u32> references;
  const u32 port;
  VchanServer ends{zone.grants.page(references[0]), references.data()};
};

template <class Host>
struct Fixture : ::testing::Test {
  bool await_connected(bool wanted) {
    for (int i = 0; i < 30'000 && channel->connected() != wanted; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds{1});
    zone.loop.run([] {});  // what comes with it is done, too
    return channel->connected() == wanted;
  }
  u64 count(Channel::CounterIndex which) { return channel->counters()[which].value(); }
  void await_count(Channel::CounterIndex which, u64 least) {
    while (count(which) < least) std::this_thread::yield();
  }

  XenbusZone zone;
  Host host;
  std::unique_ptr<Channel> channel =
      std::make_unique<Channel>(zone.loop, zone.store, zone.grants, zone.events, kDirectory, &host);
};
struct ChannelTest : Fixture<FakeConsole> {};
struct EchoTest : Fixture<Echo> {};

TEST_F(ChannelTest, TheDirectoryIsTheGuests) {
  EXPECT_EQ(zone.store.read(kDirectory), "");
  EXPECT_EQ(zone.store.access(kDirectory), StorePort::GuestAccess::kOwner);
}

TEST_F(ChannelTest, BytesGoBothWays) {
  Server server{zone};
  server.send("early ");
  server.publish();
  ASSERT_TRUE(await_connected(true));
  EXPECT_TRUE(server.ends.connected());
  server.send("hello");
  channel->quiesced([&] { EXPECT_EQ(host.output, "early hello"); });
  host.type("and back");
  EXPECT_EQ(server.receive(8), "and back");
}

TEST_F(ChannelTest, AHostThatDoesNotReadHoldsTheGuest) {
  host.room = 1000;
  Server server{zone};
  server.publish();
  ASSERT_TRUE(await_connected(true));
  const std::string text(VchanServer::kSize + 1000, 'x');
  server.send(text);
  EXPECT_EQ(server.ends.room(), 0u);
  host.set_room(FakeConsole::kUnlimited);
  EXPECT_EQ(host.output, text);
  EXPECT_EQ(server.ends.room(), VchanServer::kSize);
}

TEST_F(ChannelTest, AGuestThatDoesNotReadHoldsTheHost) {
  Server server{zone};
  server.publish();
  ASSERT_TRUE(await_connected(true));
  host.type(std::string(VchanServer::kSize + 500, 'y'));
  EXPECT_EQ(host.input.size(), 500u);
  EXPECT_EQ(server.receive(VchanServer::kSize + 500), std::string(VchanServer::kSize + 500, 'y'));
}

TEST_F(EchoTest, MegabytesThroughBothRingsWithoutALostWakeup) {
  Server server{zone};
  server.publish();
  ASSERT_TRUE(await_connected(true));
  std::string text(8'000'000, 0);
  std::mt19937 random{1};
  for (char& c : text) c = static_cast<char>(random());
  // One program, so one thread sends and receives; each in pieces of any size.
  std::string got;
  std::size_t sent = 0;
  while (got.size() < text.size()) {
    const u64 seen = zone.events.notifications(server.port);
    char buffer[20'000];
    bool tell_read = false, tell_write = false;
    const u32 in = server.ends.read(buffer, 1 + random() % sizeof buffer, tell_read);
    got.append(buffer, in);
    const u32 out = server.ends.write(
        &text[sent], static_cast<u32>(std::min<std::size_t>(random() % 30'000, text.size() - sent)), tell_write);
    sent += out;
    if (tell_read || tell_write) zone.events.raise(server.port);
    if (in > 0 || out > 0) continue;
    server.ends.want_bytes();
    if (sent < text.size()) server.ends.want_room();
    if (server.ends.used() > 0 || (sent < text.size() && server.ends.room() > 0)) continue;
    ASSERT_TRUE(zone.events.await(server.port, seen)) << sent << ' ' << got.size();
  }
  EXPECT_EQ(got, text);
}

TEST_F(EchoTest, TheBackendHearsOfOpenAndClose) {
  Server server{zone};
  server.publish();
  ASSERT_TRUE(await_connected(true));
  server.ends.leave();
  zone.events.raise(server.port);
  ASSERT_TRUE(await_connected(false));
  channel.reset();
  EXPECT_EQ(host.opens, "oc");
  EXPECT_EQ(zone.grants.mapped(), 0u);
}

TEST_F(ChannelTest, WhatAProgramWroteBeforeItEndedIsRead) {
  host.room = 3;
  Server server{zone};
  server.publish();
  ASSERT_TRUE(await_connected(true));
  server.send("farewell");
  server.ends.leave();
  zone.events.raise(server.port);
  EXPECT_TRUE(channel->connected());
  host.set_room(100);
  EXPECT_EQ(host.output, "farewell");
  EXPECT_TRUE(await_connected(false));
}

TEST_F(ChannelTest, ANewKernelWithTheSameNumbersIsANewOffer) {
  Server server{zone};
  server.publish();
  ASSERT_TRUE(await_connected(true));
  server.send("one ");
  server.ends.~VchanServer();
  std::memset(zone.grants.page(server.references[0]), 0, kPageSize);
  new (&server.ends) VchanServer{zone.grants.page(server.references[0]), server.references.data()};
  server.publish();
  await_count(Channel::kConnects, 2);
  ASSERT_TRUE(await_connected(true));
  server.send("two");
  channel->quiesced([&] { EXPECT_EQ(host.output, "one two"); });
}

TEST_F(ChannelTest, AnotherClientMayHaveSmallRings) {
  // The smallest that the layout has: both in the first page.
  const u32 page = zone.grants.grant(), port = zone.events.allocate();
  auto& shared = *reinterpret_cast<vchan_interface*>(zone.grants.page(page));
  shared.left_order = 10;
  shared.right_order = 11;
  shared.cli_live = 2;
  shared.srv_live = 1;
  std::memcpy(zone.grants.page(page) + 2048, "small", 5);
  shared.right.prod = 5;
  zone.store.write(std::string{kDirectory} + "/ring-ref", std::to_string(page));
  zone.store.write(std::string{kDirectory} + "/event-channel", std::to_string(port));
  ASSERT_TRUE(await_connected(true));
  host.type("big");
  EXPECT_EQ(std::memcmp(zone.grants.page(page) + 1024, "big", 3), 0);
  channel->quiesced([&] { EXPECT_EQ(host.output, "small"); });
}

// Bad guests.

TEST_F(ChannelTest, OffersThatMakeNoSense) {
  Server server{zone};
  const u32 hidden = server.references[20];
  const vchan_interface good = server.shared();
  const auto refuse = [&](auto change) {
    const u64 refused = count(Channel::kRefusals);
    server.shared() = good;
    change(server.shared());
    server.publish();
    await_count(Channel::kRefusals, refused + 1);
    testing::XenbusFrontend{zone, "settle", 0}.settle();
    EXPECT_FALSE(channel->connected());
    EXPECT_EQ(zone.grants.mapped(), 0u);
    zone.store.remove(std::string{kDirectory} + "/event-channel");
    testing::XenbusFrontend{zone, "settle", 0}.settle();
  };
  refuse([](auto& s) { s.left_order = 9; });
  refuse([](auto& s) { s.right_order = 21; });
  refuse([](auto& s) { s.left_order = 0xffff; });
  refuse([](auto& s) { s.left_order = s.right_order = 10; });
  refuse([](auto& s) { s.left_order = s.right_order = 11; });
  refuse([](auto& s) { s.left_order = 10, s.right_order = 20; });  // 256 grants reach into the small ring
  refuse([](auto& s) { s.right_order = 20; });                     // grants that are not there
  refuse([](auto& s) { s.srv_live = 0; });
  refuse([&](auto&) { zone.grants.revoke(hidden); });
}

TEST_F(ChannelTest, NodesThatMakeNoSense) {
  Server server{zone};
  for (const char* text : {"", "x", "-1", "4000", "99999999999"}) {
    zone.store.write(std::string{kDirectory} + "/ring-ref", text);
    zone.store.write(std::string{kDirectory} + "/event-channel", std::to_string(server.port));
    zone.store.write(std::string{kDirectory} + "/ring-ref", std::to_string(server.references[0]));
    zone.store.write(std::string{kDirectory} + "/event-channel", text);
  }
  server.publish();
  EXPECT_TRUE(await_connected(true));
}

TEST_F(ChannelTest, IndexesThatRunAwayEndTheChannel) {
  for (int which = 0; which < 2; ++which) {
    Server server{zone};
    server.publish();
    ASSERT_TRUE(await_connected(true));
    u32& index = which == 0 ? server.shared().right.prod : server.shared().left.cons;
    std::atomic_ref{index}.store(VchanServer::kSize + 1);
    zone.events.raise(server.port);
    if (which == 1) host.type("x");
    ASSERT_TRUE(await_connected(false));
    EXPECT_EQ(count(Channel::kBrokenRings), static_cast<u64>(which + 1));
    zone.loop.run([] {});
    EXPECT_EQ(zone.grants.mapped(), 0u);
    host.input.clear();
  }
}

TEST_F(ChannelTest, OffersThatComeAndGoUnderLoad) {
  std::atomic<bool> stop{false};
  Server server{zone};
  std::thread vcpu{[&] {
    while (!stop) zone.events.raise(server.port);
  }};
  for (int i = 0; i < 100; ++i) {
    server.publish();
    std::atomic_ref{server.shared().cli_live}.store(2);
    std::atomic_ref{server.shared().srv_live}.store(static_cast<u8>(i & 1));
    std::atomic_ref{server.shared().right.prod}.store(static_cast<u32>(i * 7919));
  }
  zone.store.remove(kDirectory);
  EXPECT_TRUE(await_connected(false));
  stop = true;
  vcpu.join();
}

TEST_F(ChannelTest, ItsEndWithAConnectionInUse) {
  Server server{zone};
  server.publish();
  ASSERT_TRUE(await_connected(true));
  std::atomic<bool> stop{false};
  std::thread vcpu{[&] {
    while (!stop) zone.events.raise(server.port);
  }};
  channel.reset();
  EXPECT_FALSE(zone.events.bound(server.port));
  EXPECT_EQ(zone.grants.mapped(), 0u);
  EXPECT_FALSE(server.ends.connected());
  stop = true;
  vcpu.join();
}

}  // namespace
}  // namespace bulkhead::device::xenbus
