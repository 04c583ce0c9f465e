#include "device/xenbus/bus/backend_bus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "device/xenbus/testing/frontend.h"

namespace bulkhead::device::xenbus {
namespace {

using ::testing::ElementsAre;
using testing::XenbusFrontend;
using testing::XenbusZone;

struct Journal {
  std::atomic<int> connects{0}, disconnects{0}, alive{0};
};

// A device that connects to whoever says "password = open".
class TestBackend final : public Backend {
 public:
  explicit TestBackend(Journal& journal) : journal_{journal} { ++journal_.alive; }
  ~TestBackend() override { --journal_.alive; }
  std::string_view kind() const override { return "vtest"; }
  Nodes backend_nodes() const override { return {{"params", "x"}}; }
  Nodes frontend_nodes() const override { return {{"virtual-device", "1"}}; }
  Nodes features() const override { return {{"feature-good", "1"}}; }
  Result<Nodes> connect(const NodeReader& frontend) override {
    if (frontend.text("password") != "open") return fail("the password is wrong");
    ++journal_.connects;
    return Nodes{{"sectors", "5"}};
  }
  void disconnect() override { ++journal_.disconnects; }

 private:
  Journal& journal_;
};

struct BusTest : ::testing::Test {
  explicit BusTest(Nanoseconds patience = XenbusZone::kForEver) : zone{patience} {}
  void add(u32 id = 3) { ASSERT_TRUE(zone.bus.add(id, std::make_unique<TestBackend>(journal))); }
  void connect() {
    front.say("password", "open");
    front.say(State::kInitialised);
    ASSERT_TRUE(front.await(State::kConnected));
    front.say(State::kConnected);
  }
  Journal journal;
  XenbusZone zone;
  XenbusFrontend front{zone, "vtest", 3};
};
struct ImpatientBusTest : BusTest {
  ImpatientBusTest() : BusTest{XenbusZone::kNotAtAll} {}
};

TEST_F(BusTest, WritesWhatAToolstackWrites) {
  add();
  const auto back = [&](std::string_view name) { return front.read(name); };
  EXPECT_EQ(back("frontend"), "/local/domain/7/device/vtest/3");
  EXPECT_EQ(back("frontend-id"), "7");
  EXPECT_EQ(back("online"), "1");
  EXPECT_EQ(back("params"), "x");
  EXPECT_EQ(back("feature-good"), "1");
  EXPECT_EQ(front.backend_state(), State::kInitWait);
  EXPECT_EQ(zone.store.read(front.path + "/backend"), "/local/domain/0/backend/vtest/7/3");
  EXPECT_EQ(zone.store.read(front.path + "/backend-id"), "0");
  EXPECT_EQ(zone.store.read(front.path + "/state"), "1");
  EXPECT_EQ(zone.store.read(front.path + "/virtual-device"), "1");
}

TEST_F(BusTest, TheGuestOwnsItsDirectoryAndNothingElse) {
  add();
  using Access = StorePort::GuestAccess;
  EXPECT_EQ(zone.store.access(front.path), Access::kOwner);
  EXPECT_EQ(zone.store.access(front.path + "/state"), Access::kOwner);
  EXPECT_EQ(zone.store.access(front.backend), Access::kRead);
  EXPECT_EQ(zone.store.access(front.backend + "/state"), Access::kRead);
  EXPECT_EQ(zone.store.access("/local/domain/7/device"), Access::kRead);
  EXPECT_EQ(zone.store.access("/local/domain/7/device/vtest"), Access::kRead);
}

TEST_F(BusTest, ConnectsPublishesAndCloses) {
  add();
  connect();
  EXPECT_EQ(front.read("sectors"), "5");
  ASSERT_TRUE(front.close());
  EXPECT_EQ(journal.connects, 1);
  EXPECT_EQ(journal.disconnects, 1);
  EXPECT_EQ(journal.alive, 1);  // online: it may come back
}

TEST_F(BusTest, ConnectsAFrontendThatSkipsInitialised) {
  add();
  front.say("password", "open");
  front.say(State::kConnected);
  EXPECT_TRUE(front.await(State::kConnected));
}

TEST_F(BusTest, ComesBackAfterAClose) {
  add();
  connect();
  ASSERT_TRUE(front.close());
  front.say(State::kInitialising);
  ASSERT_TRUE(front.await(State::kInitWait));
  connect();
  EXPECT_EQ(journal.connects, 2);
}

TEST_F(BusTest, ANewKernelThatNeverClosedGetsANewConnection) {
  add();
  connect();
  front.say(State::kInitialising);
  ASSERT_TRUE(front.await(State::kInitWait));
  EXPECT_EQ(journal.disconnects, 1);
  connect();
  EXPECT_EQ(journal.connects, 2);
}

TEST_F(BusTest, UnplugWaitsForTheDriverToLetGo) {
  add();
  connect();
  auto done = zone.begin_unplug("vtest", 3, Unplug::kAsk);
  ASSERT_TRUE(front.await(State::kClosing));
  EXPECT_EQ(front.read("online"), "0");
  front.say(State::kClosing);
  front.settle();
  EXPECT_EQ(journal.disconnects, 0);  // requests may be on their way
  front.say(State::kClosed);
  EXPECT_EQ(done.get(), Unplugged::kGone);
  EXPECT_TRUE(front.await_gone());
  EXPECT_EQ(journal.disconnects, 1);
  EXPECT_EQ(journal.alive, 0);
  EXPECT_EQ(zone.store.watches(), 0u);
  EXPECT_FALSE(zone.store.read("/local/domain/0/backend/vtest"));
}

TEST_F(BusTest, UnplugOfADeviceThatNobodyDrivesIsDoneAtOnce) {
  add();
  EXPECT_EQ(zone.unplug("vtest", 3, Unplug::kAsk), Unplugged::kGone);
  EXPECT_TRUE(front.await_gone());
}

TEST_F(BusTest, UnplugTwiceAnswersBoth) {
  add();
  connect();
  auto first = zone.begin_unplug("vtest", 3, Unplug::kAsk), second = zone.begin_unplug("vtest", 3, Unplug::kForce);
  zone.loop.run([] {});
  EXPECT_EQ(front.backend_state(), State::kClosing);
  front.say(State::kClosed);
  EXPECT_EQ(first.get(), Unplugged::kGone);
  EXPECT_EQ(second.get(), Unplugged::kGone);
  EXPECT_EQ(zone.unplug("vtest", 3, Unplug::kAsk), Unplugged::kNoSuchDevice);
}

TEST_F(BusTest, ANumberIsFreeAgainAfterUnplug) {
  add();
  EXPECT_FALSE(zone.bus.add(3, std::make_unique<TestBackend>(journal)));
  EXPECT_EQ(zone.unplug("vtest", 3, Unplug::kAsk), Unplugged::kGone);
  add();
  connect();
  EXPECT_EQ(journal.connects, 1);
}

TEST_F(BusTest, SeveralDevicesDoNotTouchEachOther) {
  add();
  add(4);
  connect();
  XenbusFrontend other{zone, "vtest", 4};
  EXPECT_EQ(other.backend_state(), State::kInitWait);
  EXPECT_EQ(zone.unplug("vtest", 4, Unplug::kAsk), Unplugged::kGone);
  EXPECT_EQ(front.backend_state(), State::kConnected);
  EXPECT_TRUE(zone.store.read("/local/domain/0/backend/vtest/7"));
}

TEST_F(BusTest, TheBusTakesItsDevicesWithIt) {
  auto own = std::make_unique<BackendBus>(zone.loop, zone.store, u16{9});
  ASSERT_TRUE(own->add(3, std::make_unique<TestBackend>(journal)));
  own.reset();
  EXPECT_EQ(journal.alive, 0);
  EXPECT_EQ(zone.store.watches(), 0u);
}

// Bad guests.

TEST_F(ImpatientBusTest, AGuestThatDoesNotLetGoKeepsItsDeviceWhenAsked) {
  add();
  connect();
  EXPECT_EQ(zone.unplug("vtest", 3, Unplug::kAsk), Unplugged::kRefused);
  EXPECT_EQ(journal.disconnects, 0);
  EXPECT_TRUE(zone.bus.devices().at(0).unplugging);
  front.say(State::kClosed);  // later it does
  EXPECT_TRUE(front.await_gone());
  EXPECT_EQ(zone.count(BackendBus::kRefusedUnplugs), 1u);
}

TEST_F(ImpatientBusTest, AGuestThatDoesNotLetGoLosesItWhenForced) {
  add();
  connect();
  EXPECT_EQ(zone.unplug("vtest", 3, Unplug::kForce), Unplugged::kForced);
  EXPECT_TRUE(front.await_gone());
  EXPECT_EQ(journal.disconnects, 1);
  EXPECT_EQ(journal.alive, 0);
}

TEST_F(BusTest, ARefusedSetupGoesToClosingAndMayBeTriedAgain) {
  add();
  front.say("password", "please");
  front.say(State::kInitialised);
  ASSERT_TRUE(front.await(State::kClosing));
  EXPECT_EQ(zone.bus.devices().at(0).problem, "the password is wrong");
  EXPECT_EQ(zone.count(BackendBus::kRefusals), 1u);
  front.say(State::kInitialised);
  front.settle();
  EXPECT_EQ(front.backend_state(), State::kClosing);  // not before a close
  front.say(State::kClosed);
  ASSERT_TRUE(front.await(State::kClosed));
  front.say(State::kInitialising);
  ASSERT_TRUE(front.await(State::kInitWait));
  connect();
}

TEST_F(BusTest, NonsenseInStateIsCountedAndNothingElse) {
  add();
  connect();
  front.settle();
  for (const char* text : {"9", "-1", "", "4 ", "connected", "99999999999999999999", "0x4"}) {
    front.say("state", text);
    front.settle();
  }
  EXPECT_EQ(zone.count(BackendBus::kBadStates), 7u);
  EXPECT_EQ(front.backend_state(), State::kConnected);
  EXPECT_EQ(journal.disconnects, 0);
}

TEST_F(BusTest, AGuestThatRemovesItsNodesHasClosed) {
  add();
  connect();
  zone.store.remove(front.path);
  ASSERT_TRUE(front.await(State::kClosed));
  EXPECT_EQ(journal.disconnects, 1);
  EXPECT_EQ(zone.unplug("vtest", 3, Unplug::kAsk), Unplugged::kGone);
}

TEST_F(BusTest, AGuestThatRewritesItsBackendPathFoolsNobody) {
  add();
  front.say("backend", "/local/domain/0/backend/vtest/1/1");
  connect();
  EXPECT_EQ(front.backend_state(), State::kConnected);
}

TEST_F(BusTest, AGuestThatFlapsIsFollowedAtOurPace) {
  add();
  for (int i = 0; i < 200; ++i) {
    front.say("password", "open");
    for (const State state : {State::kInitialised, State::kConnected, State::kClosing, State::kClosed,
                              State::kReconfiguring, State::kUnknown, State::kInitWait, State::kInitialising})
      front.say(state);
  }
  front.settle();
  EXPECT_EQ(front.backend_state(), State::kInitWait);
  EXPECT_EQ(zone.count(BackendBus::kConnects), zone.count(BackendBus::kDisconnects));
  connect();
}

TEST_F(BusTest, UnplugDuringNonsenseStillEnds) {
  add();
  connect();
  auto done = zone.begin_unplug("vtest", 3, Unplug::kAsk);
  ASSERT_TRUE(front.await(State::kClosing));
  for (const State state : {State::kInitialised, State::kConnected, State::kClosing, State::kReconfigured}) {
    front.say(state);
    front.settle();
  }
  EXPECT_EQ(journal.connects, 1);
  front.say(State::kInitialising);  // a new kernel: nobody holds it any more
  EXPECT_EQ(done.get(), Unplugged::kGone);
}

TEST(Nodes, NumbersAreDecimalAndNothingElse) {
  EXPECT_EQ(parse_number("0"), 0u);
  EXPECT_EQ(parse_number("4294967295"), 0xffff'ffffu);
  for (const char* text : {"", " 1", "1 ", "+1", "-1", "0x1", "4294967296", "1\n"}) EXPECT_FALSE(parse_number(text));
}

}  // namespace
}  // namespace bulkhead::device::xenbus
