#include "device/xenbus/store/domain_zero.h"

#include <atomic>
#include <thread>

#include "device/xenbus/store/fixture.h"

namespace bulkhead::device::xenbus::store {
namespace {

class DomainZeroTest : public StoreTest {
 protected:
  static void wait_until(const std::function<bool()>& condition) {
    while (!condition()) std::this_thread::yield();
  }
  DomainZero port{store, kGuest};
};

TEST_F(DomainZeroTest, ReadsListsWritesRemoves) {
  port.write("/a/b", "1");
  port.write("/a/c", "");
  EXPECT_EQ(port.read("/a/b"), "1");
  EXPECT_EQ(port.read("/a/c"), "");
  EXPECT_EQ(port.read("/a/d"), std::nullopt);
  EXPECT_EQ(port.list("/a"), (std::vector<std::string>{"b", "c"}));
  EXPECT_EQ(port.list("/nothing"), std::vector<std::string>{});
  port.remove("/a");
  EXPECT_EQ(port.read("/a/b"), std::nullopt);
}

TEST_F(DomainZeroTest, WhatIsNoPathIsNothing) {
  for (const char* bad : {"", "/a//b", "/a b", "/x/", "/\n"}) {
    port.write(bad, "1");
    port.remove(bad);
    EXPECT_EQ(port.read(bad), std::nullopt) << bad;
    EXPECT_TRUE(port.list(bad).empty());
    port.unwatch(port.watch(bad, [](const std::string&) { ADD_FAILURE(); }));
  }
  port.remove("/");
  EXPECT_TRUE(guest->read(0, "name"));
}

TEST_F(DomainZeroTest, AccessIsForNewNodes) {
  using enum StorePort::GuestAccess;
  const std::string at = kHome + "/device/";
  port.write(at + "none", "x", kNone);
  port.write(at + "read", "x");
  port.write(at + "both", "x", kReadWrite);
  port.write(at + "own", "x", kOwner);
  EXPECT_EQ(error_of(guest->read(0, "device/none")), "EACCES");
  EXPECT_TRUE(guest->read(0, "device/read"));
  EXPECT_EQ(error_of(guest->write(0, "device/read", "y")), "EACCES");
  EXPECT_TRUE(guest->write(0, "device/both", "y"));
  EXPECT_EQ(error_of(guest->set_permissions(0, "device/both", {{kGuest, Access::kNone}})), "EACCES");
  EXPECT_TRUE(guest->set_permissions(0, "device/own", {{kGuest, Access::kNone}, {kOther, Access::kRead}}));
  port.write(at + "own", "z", kNone);
  EXPECT_EQ(guest->read(0, "device/own"), "z");
}

TEST_F(DomainZeroTest, WatchesAreToldOnAnotherThread) {
  std::atomic<int> told = 0;
  std::mutex mutex;
  std::vector<std::string> paths;
  const auto id = port.watch(kHome + "/data", [&](const std::string& path) {
    std::lock_guard lock{mutex};
    paths.push_back(path);
    ++told;
  });
  wait_until([&] { return told == 1; });
  ASSERT_TRUE(guest->write(0, "data/x", "1"));
  wait_until([&] { return told == 2; });
  port.unwatch(id);
  ASSERT_TRUE(guest->write(0, "data/y", "1"));
  port.unwatch(id);
  port.unwatch(12345);
  EXPECT_EQ(paths, (std::vector<std::string>{kHome + "/data", kHome + "/data/x"}));
}

TEST_F(DomainZeroTest, UnwatchWaitsForTheCallback) {
  for (int i = 0; i < 200; ++i) {
    auto alive = std::make_unique<int>(1);
    std::atomic<bool> called = false;
    const auto id = port.watch(kHome + "/data", [&, value = alive.get()](const std::string&) {
      called = true;
      EXPECT_EQ(*value, 1);
    });
    if (i % 2) wait_until([&] { return called.load(); });
    port.unwatch(id);
    alive.reset();
    (void)guest->write(0, "data/x", std::to_string(i));
  }
}

TEST_F(DomainZeroTest, WatchesMayEndAndBeginWithinACallback) {
  std::atomic<int> inner = 0;
  std::atomic<StorePort::WatchId> id = 0;
  std::atomic<bool> ended = false;
  id = port.watch(kHome + "/data", [&](const std::string&) {
    wait_until([&] { return id != 0; });
    port.unwatch(id);
    port.watch(kHome + "/name", [&](const std::string&) { ++inner; });
    ended = true;
  });
  wait_until([&] { return ended && inner == 1; });
}

TEST_F(DomainZeroTest, AtomicChangesAreSeenAtOnce) {
  ASSERT_TRUE(guest->watch("device", "t"));
  guest_ear.take();
  port.atomically([&](StorePort& in) {
    in.write(kHome + "/device/a", "1");
    in.write(kHome + "/device/b", "1");
    EXPECT_EQ(in.read(kHome + "/device/a"), "1");
    EXPECT_EQ(port.read(kHome + "/device/a"), std::nullopt);
    EXPECT_TRUE(guest_ear.heard.empty());
    in.atomically([&](StorePort& nested) { nested.remove(kHome + "/device/suspend"); });
    EXPECT_EQ(in.list(kHome + "/device"), (std::vector<std::string>{"a", "b"}));
  });
  EXPECT_EQ(port.list(kHome + "/device"), (std::vector<std::string>{"a", "b"}));
}

TEST_F(DomainZeroTest, AtomicChangesAreTriedAgain) {
  int tries = 0;
  port.atomically([&](StorePort& in) {
    const std::string seen = in.read(kHome + "/data").value();
    if (++tries == 1) {
      ASSERT_TRUE(guest->write(0, "data", "changed"));
    }
    in.write("/result", seen);
  });
  EXPECT_EQ(tries, 2);
  EXPECT_EQ(port.read("/result"), "changed");
}

TEST_F(DomainZeroTest, AGuestThatKeepsWritingCannotKeepUsOut) {
  std::atomic<bool> stop = false;
  std::atomic<u64> wrote = 0;
  std::thread busy{[&] {
    while (!stop) {
      (void)guest->write(0, "data", std::to_string(wrote));
      ++wrote;
    }
  }};
  for (int i = 0; i < 20; ++i) {
    unsigned tries = 0;
    port.atomically([&](StorePort& in) {
      (void)in.read(kHome + "/data");
      const u64 before = wrote;
      // Without a hold the guest gets a change in between each time.
      if (++tries <= DomainZero::kTriesBeforeHold) wait_until([&] { return wrote >= before + 2; });
      in.write("/result", std::to_string(i));
    });
    EXPECT_EQ(tries, DomainZero::kTriesBeforeHold + 1);
  }
  stop = true;
  busy.join();
  EXPECT_EQ(port.read("/result"), "19");
}

TEST_F(DomainZeroTest, AGuestsFloodOfNamesStaysBounded) {
  std::atomic<bool> go = false, entered = false;
  std::atomic<u64> told = 0;
  const auto id = port.watch(kHome + "/data", [&](const std::string&) {
    entered = true;
    wait_until([&] { return go.load(); });
    ++told;
  });
  wait_until([&] { return entered.load(); });
  for (int i = 0; i < 10000; ++i) {
    ASSERT_TRUE(guest->write(0, "data/" + std::to_string(i), ""));
    ASSERT_TRUE(guest->remove(0, "data/" + std::to_string(i)));
  }
  EXPECT_GT(count(Count::kEventsCollapsed), 0u);
  go = true;
  wait_until([&] { return told > DomainZero::kEventsKept; });
  port.unwatch(id);
  EXPECT_LE(told, DomainZero::kEventsKept + 2);
}

}  // namespace
}  // namespace bulkhead::device::xenbus::store
