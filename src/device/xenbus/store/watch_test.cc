// Who hears of what, and the queue between.
#include "device/xenbus/store/event_queue.h"
#include "device/xenbus/store/fixture.h"

namespace bulkhead::device::xenbus::store {
namespace {

using WatchTest = StoreTest;
using Heard = std::vector<std::string>;

TEST_F(WatchTest, ToldAtOnceAndOfEveryChangeBelow) {
  ASSERT_TRUE(guest->watch("device", "t"));
  EXPECT_EQ(guest_ear.take(), Heard{"device t"});
  ASSERT_TRUE(zero->write(0, kHome + "/device/vbd/51712/state", "1"));
  EXPECT_EQ(guest_ear.take(), Heard{"device/vbd/51712/state t"});
  ASSERT_TRUE(zero->write(0, kHome + "/device-not", "1"));
  EXPECT_EQ(guest_ear.take(), Heard{});
  ASSERT_TRUE(zero->remove(0, kHome + "/device/vbd"));
  EXPECT_EQ(guest_ear.take(), Heard{"device/vbd t"});
}

TEST_F(WatchTest, AbsolutePathsStayAbsolute) {
  ASSERT_TRUE(guest->watch(kHome + "/data", "t"));
  ASSERT_TRUE(guest->write(0, "data/x", ""));
  EXPECT_EQ(guest_ear.take(), (Heard{kHome + "/data t", kHome + "/data/x t"}));
}

TEST_F(WatchTest, RemovingAboveIsToldAsTheWatchedPath) {
  ASSERT_TRUE(guest->write(0, "data/a/b/c", ""));
  ASSERT_TRUE(guest->watch("data/a/b", "t"));
  ASSERT_TRUE(guest->watch("data/a/not-there", "u"));
  guest_ear.take();
  ASSERT_TRUE(guest->remove(0, "data/a"));
  EXPECT_EQ(guest_ear.take(), Heard{"data/a/b t"});
}

TEST_F(WatchTest, PermissionChangesAreTold) {
  ASSERT_TRUE(guest->watch("data", "t"));
  guest_ear.take();
  ASSERT_TRUE(guest->set_permissions(0, "data", {{kGuest, Access::kRead}}));
  EXPECT_EQ(guest_ear.take(), Heard{"data t"});
}

TEST_F(WatchTest, WhatChangesNothingIsNotTold) {
  ASSERT_TRUE(guest->watch("data", "t"));
  guest_ear.take();
  ASSERT_TRUE(guest->make_directory(0, "data"));
  ASSERT_TRUE(guest->remove(0, "data/nothing"));
  EXPECT_FALSE(guest->write(0, "name", "x"));
  EXPECT_EQ(guest_ear.take(), Heard{});
}

TEST_F(WatchTest, TransactionsAreToldWhenCommitted) {
  ASSERT_TRUE(guest->watch("data", "t"));
  guest_ear.take();
  const u32 t = guest->begin().value();
  ASSERT_TRUE(guest->write(t, "data/a", "1"));
  ASSERT_TRUE(guest->write(t, "data/b", "1"));
  ASSERT_TRUE(guest->write(t, "data/a", "2"));
  EXPECT_EQ(guest_ear.take(), Heard{});
  ASSERT_TRUE(guest->end(t, true));
  EXPECT_EQ(guest_ear.take(), (Heard{"data/a t", "data/b t"}));
  const u32 u = guest->begin().value();
  ASSERT_TRUE(guest->write(u, "data/a", "3"));
  ASSERT_TRUE(guest->end(u, false));
  EXPECT_EQ(guest_ear.take(), Heard{});
}

TEST_F(WatchTest, SpecialOnesAreForDomainZero) {
  for (Session* session : {zero.get(), guest.get()})
    for (const char* name : {"@introduceDomain", "@releaseDomain"}) EXPECT_TRUE(session->watch(name, "t"));
  guest_ear.take();
  zero_ear.take();
  store.introduce(9);
  store.introduce(9);
  store.release(9);
  store.release(9);
  EXPECT_EQ(zero_ear.take(), (Heard{"@introduceDomain t", "@releaseDomain t"}));
  EXPECT_EQ(guest_ear.take(), Heard{});
}

TEST_F(WatchTest, ForeignNodesAreNotHeardOf) {
  ASSERT_TRUE(guest->watch("/", "root"));
  ASSERT_TRUE(guest->watch("/local/domain/8", "eavesdrop"));
  guest_ear.take();
  ASSERT_TRUE(other->write(0, "data/secret-name", "x"));
  ASSERT_TRUE(other->remove(0, "data/secret-name"));
  ASSERT_TRUE(zero->write(0, "/local/domain/8/name", "x"));
  ASSERT_TRUE(zero->write(0, "/libxl/x", "x"));
  EXPECT_EQ(guest_ear.take(), Heard{});
  ASSERT_TRUE(other->set_permissions(0, "data", {{kOther, Access::kNone}, {kGuest, Access::kRead}}));
  EXPECT_EQ(guest_ear.take(), (Heard{"/local/domain/8/data root", "/local/domain/8/data eavesdrop"}));
  ASSERT_TRUE(other->set_permissions(0, "data", {{kOther, Access::kNone}}));  // it could read it until now
  EXPECT_EQ(guest_ear.take().size(), 2u);
  ASSERT_TRUE(other->write(0, "data", "x"));
  EXPECT_EQ(guest_ear.take(), Heard{});
}

TEST_F(WatchTest, NonsenseIsRefused) {
  EXPECT_EQ(error_of(guest->watch("a b", "t")), "EINVAL");
  EXPECT_EQ(error_of(guest->unwatch("data", "t")), "ENOENT");
  ASSERT_TRUE(guest->watch("data", "t"));
  EXPECT_EQ(error_of(guest->watch("data", "t")), "EEXIST");
  EXPECT_EQ(error_of(guest->watch(kHome + "/data", "t")), "EEXIST");
  EXPECT_TRUE(guest->watch("data", "u"));
  EXPECT_EQ(error_of(guest->unwatch("data", "v")), "ENOENT");
  EXPECT_EQ(error_of(other->unwatch(kHome + "/data", "t")), "ENOENT");
  EXPECT_TRUE(guest->unwatch("data", "t"));
  EXPECT_EQ(error_of(guest->unwatch("data", "t")), "ENOENT");
  EXPECT_EQ(guest_ear.removed, 1u);
}

TEST_F(WatchTest, TheyRunOut) {
  for (unsigned i = 0; i < Limits{}.watches; ++i) ASSERT_TRUE(guest->watch("data", std::to_string(i)));
  EXPECT_EQ(error_of(guest->watch("data", "one more")), "E2BIG");
  EXPECT_TRUE(other->watch("data", "t"));
  guest->reset();
  EXPECT_EQ(guest_ear.removed, Limits{}.watches);
  EXPECT_TRUE(guest->watch("data", "one more"));
}

WatchRef a_watch(const char* path, const char* token) {
  return std::make_shared<const Watch>(path, std::string{token}, std::size_t{0});
}

TEST(EventQueue, KeepsOrderWithoutDoubles) {
  EventQueue queue{8};
  const WatchRef a = a_watch("/a", "t"), b = a_watch("/a", "u");
  EXPECT_EQ(queue.push(a, "/a/1"), EventQueue::Pushed::kAdded);
  EXPECT_EQ(queue.push(b, "/a/1"), EventQueue::Pushed::kAdded);
  EXPECT_EQ(queue.push(a, "/a/1"), EventQueue::Pushed::kMerged);
  EXPECT_EQ(queue.pop(), (EventQueue::Event{a, "/a/1"}));
  EXPECT_EQ(queue.push(a, "/a/1"), EventQueue::Pushed::kAdded);
  EXPECT_EQ(queue.pop(), (EventQueue::Event{b, "/a/1"}));
  EXPECT_EQ(queue.pop(), (EventQueue::Event{a, "/a/1"}));
  EXPECT_EQ(queue.pop(), std::nullopt);
}

TEST(EventQueue, ManyBecomeOneOfEachWatch) {
  EventQueue queue{10};
  const WatchRef a = a_watch("/a", "t"), b = a_watch("/b", "u");
  for (int i = 0; i < 1000; ++i) {
    queue.push(a, "/a/" + std::to_string(i));
    queue.push(b, "/b/" + std::to_string(i));
  }
  EXPECT_EQ(queue.size(), 12u);
  std::vector<std::string> last;
  while (const auto event = queue.pop()) last.push_back(event->second);
  EXPECT_EQ(last[10], "/a");
  EXPECT_EQ(last[11], "/b");
}

TEST(EventQueue, LongPathsAreBoundedByTheirBytes) {
  EventQueue queue{100000};
  const WatchRef a = a_watch("/a", "t");
  for (int i = 0; i < 10000; ++i) queue.push(a, "/a/" + std::string(3000, 'x') + std::to_string(i));
  EXPECT_LE(queue.size(), EventQueue::kMaxBytes / 3000 + 1);
}

TEST(EventQueue, DroppedWatchesLeaveNothing) {
  EventQueue queue{8};
  const WatchRef a = a_watch("/a", "t"), b = a_watch("/a", "u");
  queue.push(a, "/a/1");
  queue.push(b, "/a/2");
  queue.push(a, "/a/3");
  queue.drop(a);
  EXPECT_EQ(queue.size(), 1u);
  EXPECT_EQ(queue.pop(), (EventQueue::Event{b, "/a/2"}));
}

}  // namespace
}  // namespace bulkhead::device::xenbus::store
