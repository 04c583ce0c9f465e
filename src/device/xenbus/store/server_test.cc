#include "device/xenbus/store/server.h"

#include <thread>

#include "device/xenbus/store/domain_zero.h"
#include "device/xenbus/store/fixture.h"
#include "device/xenbus/testing/fake_events.h"
#include "device/xenbus/testing/xenstore_client.h"

namespace bulkhead::device::xenbus::store {
namespace {

using testing::FakeEvents;
using testing::XenstoreClient;

struct alignas(4096) Page {
  std::byte bytes[4096] = {};
};

class ServerTest : public StoreTest {
 protected:
  void open() { server = StoreServer::open(store, kGuest, page.bytes, events, port).value(); }
  Page page;
  FakeEvents events;
  const u32 port = events.allocate();
  std::unique_ptr<StoreServer> server;
  XenstoreClient client{page.bytes, [this] {
                          events.raise(port);
                          std::this_thread::yield();
                        }};
};

TEST_F(ServerTest, AnswersFromItsOwnThread) {
  open();
  EXPECT_EQ(client.read("name"), "zone7");
  EXPECT_GT(events.notifications(port), 0u);
  ASSERT_EQ(client.watch("device", "t"), "OK");
  client.wait_for_event();
  ASSERT_TRUE(zero->write(0, kHome + "/device/new", "x"));
  EXPECT_EQ(client.wait_for_event(), (XenstoreClient::Event{"device/new", "t"}));
}

TEST_F(ServerTest, AnswersWhatWasThereBeforeIt) {
  client.put_bytes(XenstoreClient::message(XS_READ, 9, 0, XenstoreClient::string("name")));
  open();
  while (client.replies().empty()) client.collect();  // no event was ever raised
  EXPECT_EQ(client.replies()[0].payload, "zone7");
}

TEST_F(ServerTest, ComesAndGoes) {
  ASSERT_TRUE(zero->watch("@releaseDomain", "t"));
  zero_ear.take();
  EXPECT_FALSE(store.is_introduced(kGuest));
  for (int i = 0; i < 20; ++i) {
    open();
    EXPECT_TRUE(store.is_introduced(kGuest));
    client.send(XS_READ, XenstoreClient::string("name"));
    server.reset();
    EXPECT_FALSE(store.is_introduced(kGuest));
    EXPECT_FALSE(events.bound(port));
    page = {};
  }
  EXPECT_EQ(zero_ear.heard.size(), 20u);
}

TEST_F(ServerTest, WithoutAPortThereIsAnError) {
  open();
  const auto result = StoreServer::open(store, kGuest, page.bytes, events, port);  // bound already
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message.find("event channel " + std::to_string(port)), std::string::npos);
  EXPECT_EQ(client.read("name"), "zone7");
}

TEST_F(ServerTest, EndsUnderAFlood) {
  open();
  std::atomic<bool> stop = false;
  std::thread flood{[&] {
    const std::string request = XenstoreClient::message(XS_WRITE, 1, 0, XenstoreClient::string("data/x"));
    while (!stop) {
      if (client.room() >= request.size()) client.put_bytes(request);
      client.collect();
      client.replies().clear();
      events.raise(port);
    }
  }};
  while (store.counters()[0].value() < 1000) std::this_thread::yield();
  server.reset();
  stop = true;
  flood.join();
}

TEST_F(ServerTest, AGuestAndABackendAgreeOnADevice) {
  open();
  DomainZero back{store, kGuest};
  const std::string backend = "/local/domain/0/backend/vbd/7/51712", frontend = kHome + "/device/vbd/51712";
  std::atomic<bool> connected = false;
  back.atomically([&](StorePort& in) {
    in.write(frontend, "", StorePort::GuestAccess::kOwner);
    in.write(frontend + "/backend", backend, StorePort::GuestAccess::kOwner);
    in.write(frontend + "/state", "1", StorePort::GuestAccess::kOwner);
    in.write(backend, "");
    in.write(backend + "/state", "2");
  });
  const auto id = back.watch(frontend + "/state", [&](const std::string& path) {
    if (back.read(path) != "3") return;
    back.write(backend + "/ring", back.read(frontend + "/ring-ref").value());
    back.write(backend + "/state", "4");
    connected = true;
  });
  ASSERT_EQ(client.read("device/vbd/51712/backend"), backend);
  ASSERT_EQ(client.watch(backend + "/state", "other-end"), "OK");
  for (;;) {
    const u32 t = client.begin();
    ASSERT_EQ(client.write("device/vbd/51712/ring-ref", "8", t), "OK");
    ASSERT_EQ(client.write("device/vbd/51712/state", "3", t), "OK");
    if (client.end(t) == "OK") break;
  }
  while (client.read(backend + "/state") != "4") client.wait_for_event();
  EXPECT_TRUE(connected);
  EXPECT_EQ(client.read(backend + "/ring"), "8");
  EXPECT_EQ(client.write(backend + "/state", "6"), "EACCES");
  back.unwatch(id);
}

}  // namespace
}  // namespace bulkhead::device::xenbus::store
