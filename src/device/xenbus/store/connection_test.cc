// The wire protocol over a ring, as a guest that means well uses it.
#include "device/xenbus/store/connection.h"

#include <algorithm>

#include "device/xenbus/store/fixture.h"
#include "device/xenbus/testing/xenstore_client.h"

namespace bulkhead::device::xenbus::store {
namespace {

using testing::XenstoreClient;

struct alignas(4096) Page {
  std::byte bytes[4096] = {};
};

class ConnectionTest : public StoreTest {
 protected:
  static std::string z(std::string_view text) { return XenstoreClient::string(text); }
  void pump() {
    while (connection.pump().more) {
    }
  }
  Page page;
  Connection connection{store, kGuest, page.bytes, [this] { ++wakes; }};
  XenstoreClient client{page.bytes, [this] { pump(); }, 100};
  unsigned wakes = 0;
};

TEST_F(ConnectionTest, SaysWhatItCan) {
  EXPECT_EQ(client.page().server_features, XENSTORE_SERVER_FEATURE_RECONNECTION | XENSTORE_SERVER_FEATURE_ERROR);
  EXPECT_EQ(client.page().connection, u32{XENSTORE_CONNECTED});
  EXPECT_EQ(client.error(), u32{XENSTORE_ERROR_NONE});
}

TEST_F(ConnectionTest, ReadsAndWrites) {
  EXPECT_EQ(client.write("data/a", "hello"), "OK");
  const XenstoreClient::Message reply = client.ask(XS_READ, z("data/a"));
  EXPECT_EQ(reply.type, u32{XS_READ});
  EXPECT_EQ(reply.payload, "hello");  // no zero byte behind a value
  EXPECT_EQ(client.ask(XS_WRITE, z("data/a")).payload, z("OK"));
  EXPECT_EQ(client.ask(XS_READ, z("data/a")).payload, "");
  EXPECT_EQ(client.write("data/a", std::string("\0\xff\0", 3)), "OK");
  EXPECT_EQ(client.ask(XS_READ, z("data/a")).payload, std::string("\0\xff\0", 3));
  EXPECT_EQ(client.text(XS_RM, z("data/a")), "OK");
  EXPECT_EQ(client.read("data/a"), "ENOENT");
  EXPECT_EQ(count(Count::kErrors), 1u);
}

TEST_F(ConnectionTest, ErrorsCarryTheRequestsNumbers) {
  const XenstoreClient::Message reply = client.ask(XS_READ, z("nothing"), 77);
  EXPECT_EQ(reply.type, u32{XS_ERROR});
  EXPECT_EQ(reply.transaction, 77u);
  EXPECT_EQ(reply.payload, z("ENOENT"));
}

TEST_F(ConnectionTest, ListsAndMakes) {
  EXPECT_EQ(client.ask(XS_DIRECTORY, z("data")).payload, "");
  EXPECT_EQ(client.text(XS_MKDIR, z("data/b/c")), "OK");
  EXPECT_EQ(client.text(XS_MKDIR, z("data/a")), "OK");
  EXPECT_EQ(client.ask(XS_DIRECTORY, z("data")).payload, z("a") + z("b"));
}

TEST_F(ConnectionTest, LongListsComeInParts) {
  for (int i = 0; i < 500; ++i)
    ASSERT_EQ(client.text(XS_MKDIR, z("data/a-rather-long-name-" + std::to_string(i))), "OK");
  EXPECT_EQ(client.text(XS_DIRECTORY, z("data")), "E2BIG");
  std::string all, generation;
  unsigned parts = 0;
  for (bool last = false; !last; ++parts) {
    ASSERT_LT(parts, 100u);
    const std::string part = client.ask(XS_DIRECTORY_PART, z("data") + z(std::to_string(all.size()))).payload;
    const std::size_t end = part.find('\0') + 1;
    if (parts > 0) {
      EXPECT_EQ(generation, part.substr(0, end));
    }
    generation = part.substr(0, end);
    std::string names = part.substr(end);
    last = names.size() == 1 || names.substr(names.size() - 2) == std::string(2, '\0');
    if (last) names.pop_back();
    all += names;
  }
  EXPECT_EQ(std::ranges::count(all, '\0'), 500);
  EXPECT_GT(parts, 2u);
  EXPECT_EQ(client.ask(XS_DIRECTORY_PART, z("data") + z("999999")).payload, generation + '\0');
  ASSERT_EQ(client.text(XS_MKDIR, z("data/new")), "OK");
  EXPECT_NE(client.ask(XS_DIRECTORY_PART, z("data") + z("999999")).payload, generation + '\0');
}

TEST_F(ConnectionTest, Permissions) {
  EXPECT_EQ(client.ask(XS_GET_PERMS, z("name")).payload, z("n0") + z("r7"));
  EXPECT_EQ(client.text(XS_SET_PERMS, z("data") + z("n7") + z("r8")), "OK");
  EXPECT_EQ(client.ask(XS_GET_PERMS, z("data")).payload, z("n7") + z("r8"));
  EXPECT_EQ(client.text(XS_SET_PERMS, z("data") + z("n8")), "EPERM");
  EXPECT_EQ(client.text(XS_SET_PERMS, z("name") + z("n7")), "EACCES");
  EXPECT_EQ(count(Count::kRefusedAccess), 2u);
}

TEST_F(ConnectionTest, Transactions) {
  const u32 t = client.begin();
  ASSERT_NE(t, 0u);
  EXPECT_EQ(client.write("data/a", "1", t), "OK");
  EXPECT_EQ(client.read("data/a"), "ENOENT");
  EXPECT_EQ(client.read("data/a", t), "1");
  EXPECT_EQ(client.end(t), "OK");
  EXPECT_EQ(client.read("data/a"), "1");
  EXPECT_EQ(client.end(t), "ENOENT");
  EXPECT_EQ(client.end(0), "ENOENT");
  const u32 u = client.begin();
  EXPECT_EQ(client.text(XS_TRANSACTION_START, z(""), u), "EBUSY");
  EXPECT_EQ(client.text(XS_TRANSACTION_END, z("X"), u), "EINVAL");
  EXPECT_EQ(client.read("data/a", u), "1");
  ASSERT_TRUE(zero->write(0, kHome + "/data/a", "2"));
  EXPECT_EQ(client.end(u), "EAGAIN");
}

TEST_F(ConnectionTest, WatchesAndTheirEvents) {
  EXPECT_EQ(client.watch("device", "tok"), "OK");
  EXPECT_EQ(client.wait_for_event(), (XenstoreClient::Event{"device", "tok"}));
  wakes = 0;
  ASSERT_TRUE(zero->write(0, kHome + "/device/vbd/1", "x"));
  EXPECT_EQ(wakes, 1u);
  EXPECT_EQ(client.wait_for_event(), (XenstoreClient::Event{"device/vbd/1", "tok"}));
  EXPECT_EQ(client.unwatch("device", "tok"), "OK");
  ASSERT_TRUE(zero->write(0, kHome + "/device/vbd/1", "y"));
  pump();
  EXPECT_EQ(client.event(), std::nullopt);
}

TEST_F(ConnectionTest, AnUnwatchTakesItsWaitingEventsAlong) {
  ASSERT_EQ(client.watch("data", "t"), "OK");
  client.wait_for_event();
  std::string reads;  // their replies fill the ring
  for (u32 i = 0; i < XENSTORE_RING_SIZE / 21; ++i) reads += XenstoreClient::message(XS_READ, 1000 + i, 0, z("name"));
  for (int twice = 0; twice < 2; ++twice) {
    ASSERT_EQ(client.put_bytes(reads.substr(0, twice ? 210 : reads.size())), twice ? 210 : reads.size());
    pump();
  }
  ASSERT_TRUE(zero->write(0, kHome + "/data/x", ""));
  pump();
  EXPECT_EQ(client.unwatch("data", "t"), "OK");
  pump();
  EXPECT_EQ(client.event(), std::nullopt);
}

TEST_F(ConnectionTest, ResettingWatchesEndsTransactionsToo) {
  ASSERT_EQ(client.watch("data", "t"), "OK");
  const u32 t = client.begin();
  EXPECT_EQ(client.text(XS_RESET_WATCHES, z("")), "OK");
  EXPECT_EQ(client.watch("data", "t"), "OK");
  EXPECT_EQ(client.read("data", t), "ENOENT");
}

TEST_F(ConnectionTest, OfDomains) {
  store.introduce(kGuest);
  EXPECT_EQ(client.text(XS_GET_DOMAIN_PATH, z("7")), kHome);
  EXPECT_EQ(client.ask(XS_IS_DOMAIN_INTRODUCED, z("7")).payload, z("T"));
  EXPECT_EQ(client.ask(XS_IS_DOMAIN_INTRODUCED, z("0")).payload, z("T"));
  EXPECT_EQ(client.ask(XS_IS_DOMAIN_INTRODUCED, z("99")).payload, z("F"));
}

TEST_F(ConnectionTest, BytesMayComeOneByOne) {
  const std::string bytes = XenstoreClient::message(XS_WRITE, 5, 0, z("data/x") + "slow") +
                            XenstoreClient::message(XS_READ, 6, 0, z("data/x"));
  for (const char byte : bytes) {
    ASSERT_EQ(client.put_bytes({&byte, 1}), 1u);
    pump();
  }
  client.collect();
  ASSERT_EQ(client.replies().size(), 2u);
  EXPECT_EQ(client.replies()[1].request, 6u);
  EXPECT_EQ(client.replies()[1].payload, "slow");
}

TEST_F(ConnectionTest, ManyAtOnceAreAnsweredInOrder) {
  std::string bytes;
  for (u32 i = 0; i < 40; ++i) bytes += XenstoreClient::message(XS_READ, i, 0, z("name"));
  ASSERT_EQ(client.put_bytes(bytes), bytes.size());
  for (int i = 0; i < 100; ++i) {
    pump();
    client.collect();
  }
  ASSERT_EQ(client.replies().size(), 40u);
  for (u32 i = 0; i < 40; ++i) EXPECT_EQ(client.replies()[i].request, i);
}

TEST_F(ConnectionTest, RepliesLongerThanTheRingArriveWhole) {
  const std::string value(2048, 'v');
  EXPECT_EQ(client.write("data/long", value), "OK");
  EXPECT_EQ(client.read("data/long"), value);
}

TEST_F(ConnectionTest, IndexesWrapAround) {
  Page late;
  auto& indexes = *reinterpret_cast<xenstore_domain_interface*>(late.bytes);
  indexes.req_cons = indexes.req_prod = 0xffffff00;
  indexes.rsp_cons = indexes.rsp_prod = 0xfffffff0;
  Connection second{store, kOther, late.bytes, [] {}};
  XenstoreClient its{late.bytes,
                     [&] {
                       while (second.pump().more) {
                       }
                     },
                     100};
  for (int i = 0; i < 50; ++i) EXPECT_EQ(its.read("name"), "zone8");
  EXPECT_LT(indexes.req_cons, 0x10000u);
}

TEST_F(ConnectionTest, ReconnectingStartsAfresh) {
  ASSERT_EQ(client.watch("data", "t"), "OK");
  const u32 t = client.begin();
  client.put_bytes(XenstoreClient::message(XS_READ, 1, 0, z("name")).substr(0, 10));
  pump();
  client.reconnect();
  EXPECT_EQ(client.page().req_prod, 0u);
  EXPECT_EQ(client.page().rsp_prod, 0u);
  EXPECT_EQ(client.read("name"), "zone7");
  EXPECT_EQ(client.read("name", t), "ENOENT");
  EXPECT_EQ(client.watch("data", "t"), "OK");
  EXPECT_EQ(count(Count::kReconnections), 1u);
}

TEST_F(ConnectionTest, RepliesComeBeforeWaitingEvents) {
  ASSERT_EQ(client.watch("data", "t"), "OK");
  client.wait_for_event();
  client.send(XS_WRITE, z("data/x") + "1");
  pump();
  client.collect();
  EXPECT_EQ(client.replies().size(), 1u);
  EXPECT_EQ(client.wait_for_event(), (XenstoreClient::Event{"data/x", "t"}));
}

}  // namespace
}  // namespace bulkhead::device::xenbus::store
