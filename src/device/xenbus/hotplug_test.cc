// The bus on the real store, with a guest that sees of it what its ring says: devices come and go while it runs.
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "device/xenbus/bus/backend_bus.h"
#include "device/xenbus/store/domain_zero.h"
#include "device/xenbus/store/server.h"
#include "device/xenbus/store/setup_domain.h"
#include "device/xenbus/testing/fake_events.h"
#include "device/xenbus/testing/xenstore_client.h"

namespace bulkhead::device::xenbus {
namespace {

constexpr u16 kDomain = 7;
const std::string kFront = "device/vtest/3", kBack = "/local/domain/0/backend/vtest/7/3";

class TestBackend final : public Backend {
 public:
  std::string_view kind() const override { return "vtest"; }
  Nodes features() const override { return {{"feature-good", "1"}}; }
  Result<Nodes> connect(const NodeReader& frontend) override {
    if (frontend.number("ring-ref") != 8u) return fail("no ring");
    return Nodes{{"sectors", "5"}};
  }
  void disconnect() override {}
};

struct alignas(4096) Page {
  std::byte bytes[4096] = {};
};

store::DomainDescription description() {
  store::DomainDescription domain;
  domain.domain = kDomain;
  domain.uuid = "0";
  return domain;
}

class Hotplug : public ::testing::Test {
 protected:
  Hotplug() {
    EXPECT_TRUE(setup_domain(store, description()));
    server = store::StoreServer::open(store, kDomain, page.bytes, events, port).value();
    EXPECT_EQ(guest.watch("device", "new devices"), "OK");
    EXPECT_EQ(guest.wait_for_event().path, "device");
  }
  void add() { ASSERT_TRUE(bus.add(3, std::make_unique<TestBackend>())); }
  void say(std::string_view name, std::string_view value) {
    EXPECT_EQ(guest.write(kFront + "/" + std::string{name}, value), "OK");
  }
  // As a driver waits for its other end: by a watch.
  void await(State state) {
    while (guest.read(kBack + "/state") != std::to_string(static_cast<unsigned>(state))) guest.wait_for_event();
  }
  // As Linux looks for devices: lists what is there when something below "device" has changed.
  void await_device() {
    while (guest.text(XS_DIRECTORY, guest.string("device/vtest")) != "3") guest.wait_for_event();
  }
  void connect() {
    await_device();
    EXPECT_EQ(guest.watch(kBack + "/state", "other end"), "OK");
    await(State::kInitWait);
    const u32 t = guest.begin();
    EXPECT_EQ(guest.write(kFront + "/ring-ref", "8", t), "OK");
    EXPECT_EQ(guest.write(kFront + "/state", "3", t), "OK");
    EXPECT_EQ(guest.end(t), "OK");
    await(State::kConnected);
    say("state", "4");
  }

  store::Store store;
  Page page;
  testing::FakeEvents events;
  const u32 port = events.allocate();
  store::DomainZero zero{store, kDomain};
  std::unique_ptr<store::StoreServer> server;
  testing::XenstoreClient guest{page.bytes, [this] {
                                  events.raise(port);
                                  std::this_thread::yield();
                                }};
  Loop loop;
  BackendBus bus{loop, zero, kDomain};
};

TEST_F(Hotplug, ADeviceComesWhileTheGuestRuns) {
  add();
  connect();
  EXPECT_EQ(guest.read(kFront + "/backend"), kBack);
  EXPECT_EQ(guest.read(kBack + "/feature-good"), "1");
  EXPECT_EQ(guest.read(kBack + "/sectors"), "5");
}

TEST_F(Hotplug, AndGoesAgain) {
  for (int round = 0; round < 3; ++round) {
    add();
    connect();
    std::promise<Unplugged> done;
    bus.unplug("vtest", 3, Unplug::kAsk, [&](Unplugged how) { done.set_value(how); });
    await(State::kClosing);
    EXPECT_EQ(guest.unwatch(kBack + "/state", "other end"), "OK");
    say("state", "6");
    EXPECT_EQ(done.get_future().get(), Unplugged::kGone);
    EXPECT_EQ(guest.text(XS_DIRECTORY, guest.string("device")), "suspend");
    EXPECT_EQ(guest.read(kBack), "EACCES");
  }
}

TEST_F(Hotplug, TheGuestCannotPlayTheBackend) {
  add();
  connect();
  EXPECT_EQ(guest.write(kBack + "/state", "6"), "EACCES");
  EXPECT_EQ(guest.write(kBack + "/params", "/etc/shadow"), "EACCES");
  EXPECT_EQ(guest.write("device/vtest/4/state", "1"), "EACCES");
  EXPECT_EQ(guest.text(XS_RM, guest.string("device/vtest")), "EACCES");
  EXPECT_EQ(guest.text(XS_RM, guest.string(kBack)), "EACCES");
}

TEST_F(Hotplug, AGuestThatTearsOutItsOwnDeviceLosesIt) {
  add();
  connect();
  EXPECT_EQ(guest.text(XS_RM, guest.string(kFront)), "OK");
  await(State::kClosed);
  std::promise<Unplugged> done;
  bus.unplug("vtest", 3, Unplug::kAsk, [&](Unplugged how) { done.set_value(how); });
  EXPECT_EQ(done.get_future().get(), Unplugged::kGone);
}

TEST_F(Hotplug, AGuestThatWritesWithoutPauseKeepsNobodyOut) {
  std::atomic<bool> stop = false;
  std::thread busy{[&] {
    while (!stop) {
      guest.write("device/suspend/event-channel", "1");
      guest.write(kFront + "/x", "1");
    }
  }};
  for (int round = 0; round < 20; ++round) {
    add();
    std::promise<Unplugged> done;
    bus.unplug("vtest", 3, Unplug::kForce, [&](Unplugged how) { done.set_value(how); });
    EXPECT_NE(done.get_future().get(), Unplugged::kNoSuchDevice);
  }
  stop = true;
  busy.join();
}

}  // namespace
}  // namespace bulkhead::device::xenbus
