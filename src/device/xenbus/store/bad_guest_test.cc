// Guests that mean harm or know no better: whatever they put into the ring, others go on, and what is kept for them
// stays bounded.
#include <random>
#include <set>

#include "device/xenbus/store/connection.h"
#include "device/xenbus/store/fixture.h"
#include "device/xenbus/testing/xenstore_client.h"

namespace bulkhead::device::xenbus::store {
namespace {

using testing::XenstoreClient;

struct alignas(4096) Page {
  std::byte bytes[4096] = {};
};

class BadGuest : public StoreTest {
 protected:
  static std::string z(std::string_view text) { return XenstoreClient::string(text); }
  void pump() {
    while (connection.pump().more) {
    }
  }
  void expect_closed(u32 error) {
    EXPECT_TRUE(connection.closed());
    EXPECT_EQ(client.error(), error);
    EXPECT_EQ(count(Count::kProtocolErrors), 1u);
    const u32 consumed = client.page().req_cons;
    client.page().req_prod = consumed + 100;
    pump();
    EXPECT_EQ(client.page().req_cons, consumed);
  }
  void expect_well() { EXPECT_EQ(client.read("name"), "zone7"); }

  Page page;
  Connection connection{store, kGuest, page.bytes, [] {}};
  XenstoreClient client{page.bytes, [this] { pump(); }, 1000};
};

TEST_F(BadGuest, ProducerAheadOfTheRing) {
  client.page().req_prod = 1025;
  pump();
  expect_closed(XENSTORE_ERROR_RINGIDX);
}

TEST_F(BadGuest, ProducerBehindTheConsumer) {
  expect_well();
  --client.page().req_prod;
  pump();
  expect_closed(XENSTORE_ERROR_RINGIDX);
}

TEST_F(BadGuest, ResponseConsumerAheadOfTheProducer) {
  client.page().rsp_cons = 5;
  client.put_bytes(XenstoreClient::message(XS_READ, 1, 0, z("name")));
  pump();
  expect_closed(XENSTORE_ERROR_RINGIDX);
}

TEST_F(BadGuest, OurIndexesScribbledOver) {
  client.page().req_cons = 0x12345678;
  client.page().rsp_prod = 0x87654321;
  client.page().req_prod = 0;
  for (char byte : XenstoreClient::message(XS_READ, 1, 0, z("name")))
    client.page().req[client.page().req_prod++] = byte;
  pump();
  EXPECT_FALSE(connection.closed());
  EXPECT_EQ(client.page().req_cons, client.page().req_prod);
  EXPECT_EQ(client.page().rsp_prod, sizeof(xsd_sockmsg) + 5);
}

TEST_F(BadGuest, OversizeLength) {
  xsd_sockmsg header{XS_WRITE, 1, 0, XENSTORE_PAYLOAD_MAX + 1};
  client.put_bytes({reinterpret_cast<const char*>(&header), sizeof(header)});
  pump();
  expect_closed(XENSTORE_ERROR_PROTO);
}

TEST_F(BadGuest, HugeLengthLosesItsWatchesAndTransactions) {
  ASSERT_EQ(client.watch("data", "t"), "OK");
  for (int i = 0; i < 5; ++i) client.begin();
  xsd_sockmsg header{XS_WRITE, 1, 0, 0xffffffff};
  client.put_bytes({reinterpret_cast<const char*>(&header), sizeof(header)});
  pump();
  expect_closed(XENSTORE_ERROR_PROTO);
  EXPECT_TRUE(zero->write(0, kHome + "/data", "still works"));
  client.reconnect();
  EXPECT_EQ(client.error(), u32{XENSTORE_ERROR_NONE});
  EXPECT_FALSE(connection.closed());
  expect_well();
  EXPECT_EQ(client.event(), std::nullopt);
  for (unsigned i = 0; i < Limits{}.transactions; ++i) EXPECT_NE(client.begin(), 0u);
}

TEST_F(BadGuest, TheLargestMessageIsOne) {
  EXPECT_EQ(client.text(XS_WRITE, std::string(XENSTORE_PAYLOAD_MAX, 'x')), "EINVAL");  // no zero byte
  EXPECT_EQ(client.write("data/x", std::string(XENSTORE_PAYLOAD_MAX - 7, 'x')), "ENOSPC");
  expect_well();
}

TEST_F(BadGuest, PayloadsThatAreNone) {
  for (const u32 type :
       {XS_DIRECTORY, XS_READ, XS_GET_PERMS, XS_WATCH, XS_UNWATCH, XS_TRANSACTION_END, XS_GET_DOMAIN_PATH, XS_WRITE,
        XS_MKDIR, XS_RM, XS_SET_PERMS, XS_IS_DOMAIN_INTRODUCED, XS_DIRECTORY_PART})
    for (const std::string& payload : {std::string{}, std::string{"data"}, z(""), z("a b"), z("//"), z("data/"),
                                       z("+1") + z("+"), std::string(100, '\0')}) {
      const XenstoreClient::Message reply = client.ask(type, payload);
      EXPECT_EQ(reply.type, u32{XS_ERROR}) << type;
      EXPECT_EQ(reply.payload, z("EINVAL")) << type << " '" << payload << "'";
    }
  for (const u32 type : {XS_DIRECTORY, XS_READ, XS_GET_PERMS, XS_MKDIR, XS_RM, XS_GET_DOMAIN_PATH})
    EXPECT_EQ(client.text(type, z("data") + "more"), "EINVAL");
  EXPECT_EQ(client.text(XS_SET_PERMS, z("data")), "EINVAL");
  EXPECT_EQ(client.text(XS_SET_PERMS, z("data") + z("n7") + z("q7")), "EINVAL");
  for (const char* number : {"", "-1", "65536", "7x", "99999999999999999999"})
    EXPECT_EQ(client.text(XS_GET_DOMAIN_PATH, z(number)), "EINVAL") << number;
  for (const char* offset : {"", "-1", "1x", "99999999999999999999"})
    EXPECT_EQ(client.text(XS_DIRECTORY_PART, z("data") + z(offset)), "EINVAL") << offset;
  expect_well();
}

TEST_F(BadGuest, AsksForWhatIsDomainZeros) {
  for (const u32 type : {XS_CONTROL, XS_INTRODUCE, XS_RELEASE, XS_RESUME, XS_SET_TARGET})
    for (const std::string& payload : {std::string{}, z("7"), z("7") + z("8"), z("0") + z("1") + z("2")})
      EXPECT_EQ(client.text(type, payload), "EACCES") << type;
  expect_well();
}

TEST_F(BadGuest, AsksForWhatThereIsNot) {
  for (const u32 type : {u32{XS_WATCH_EVENT}, u32{XS_ERROR}, u32{20}, u32{XS_TYPE_COUNT}, u32{XS_INVALID}, 0xffffffffu})
    EXPECT_EQ(client.text(type, z("data")), "ENOSYS") << type;
}

TEST_F(BadGuest, UsesTransactionsThatAreNotItsOwn) {
  const u32 theirs = other->begin().value();
  ASSERT_TRUE(other->write(theirs, "data/x", "1"));
  const u32 mine = client.begin();
  for (u32 id = 0; id < 20; ++id)
    if (id != mine) {
      EXPECT_EQ(client.end(id), "ENOENT");
    }
  EXPECT_TRUE(other->end(theirs, true));
}

TEST_F(BadGuest, LeaksTransactions) {
  for (unsigned i = 0; i < Limits{}.transactions; ++i) EXPECT_NE(client.begin(), 0u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(client.text(XS_TRANSACTION_START, z("")), "ENOSPC");
  expect_well();
  EXPECT_EQ(count(Count::kRefusedLimit), 1000u);
}

TEST_F(BadGuest, FloodsWithoutTakingReplies) {
  const std::string request = XenstoreClient::message(XS_READ, 1, 0, z("name"));
  u64 sent = 0;
  for (int i = 0; i < 10000; ++i) {
    // Whole requests only, so that what has been read can be counted.
    if (client.room() >= request.size()) sent += client.put_bytes(request) / request.size();
    pump();
  }
  const u64 in_ring = XENSTORE_RING_SIZE / request.size() + 1, replies_in_ring = XENSTORE_RING_SIZE / 21 + 1;
  EXPECT_LE(sent, in_ring + replies_in_ring + Limits{}.replies + 2);
  EXPECT_EQ(count(Count::kStalls), 1u);
  // Once it takes them, all is answered.
  for (int i = 0; i < 1000; ++i) {
    client.collect();
    pump();
  }
  EXPECT_EQ(client.replies().size(), sent);
  expect_well();
}

TEST_F(BadGuest, WatchesEverythingAndTakesNothing) {
  for (unsigned i = 0; i < Limits{}.watches; ++i) ASSERT_EQ(client.watch("data", std::to_string(i)), "OK");
  while (client.event()) pump();
  const u32 t = guest->begin().value();  // its other session, so that the flood needs no room in the ring
  for (int i = 0; i < 900; ++i) ASSERT_TRUE(guest->write(t, "data/" + std::to_string(i), ""));
  ASSERT_TRUE(guest->end(t, true));
  EXPECT_GT(count(Count::kEventsCollapsed), 100000u);
  // It is not listened to until it has taken them.
  client.put_bytes(XenstoreClient::message(XS_READ, 4242, 0, z("name")));
  pump();
  EXPECT_GE(count(Count::kStalls), 1u);
  unsigned told = 0;
  std::set<std::string> tokens;
  for (int i = 0; i < 10000; ++i) {
    pump();
    while (const auto event = client.event()) {
      ++told;
      tokens.insert(event->token);
    }
  }
  EXPECT_LE(told, Limits{}.events_kept + Limits{}.watches + 200);
  EXPECT_EQ(tokens.size(), Limits{}.watches);  // none is forgotten
  ASSERT_EQ(client.replies().size(), 1u);
  EXPECT_EQ(client.replies()[0].request, 4242u);
}

TEST_F(BadGuest, EventsThatDoNotFitNameTheWatch) {
  const std::string token(XENSTORE_PAYLOAD_MAX - 10, 't');
  ASSERT_EQ(client.watch("data", token), "OK");
  EXPECT_EQ(client.wait_for_event(), (XenstoreClient::Event{"data", token}));
  ASSERT_EQ(client.write("data/" + std::string(1000, 'n'), ""), "OK");
  EXPECT_EQ(client.wait_for_event(), (XenstoreClient::Event{"data", token}));
  expect_well();
}

TEST_F(BadGuest, UnwatchesNonsense) {
  EXPECT_EQ(client.unwatch("data", "t"), "ENOENT");
  EXPECT_EQ(client.unwatch("", "t"), "EINVAL");
  ASSERT_EQ(client.watch("data", ""), "OK");
  EXPECT_EQ(client.unwatch("data", " "), "ENOENT");
  EXPECT_EQ(client.unwatch("data", ""), "OK");
  EXPECT_EQ(client.unwatch("data", ""), "ENOENT");
}

TEST_F(BadGuest, ReconnectsInTheMiddleOfEverything) {
  std::mt19937 random{3};
  for (int i = 0; i < 500; ++i) {
    const std::string bytes = XenstoreClient::message(random() % 24, i, random() % 3, z("data") + z("x"));
    client.put_bytes(bytes.substr(0, random() % (bytes.size() + 1)));
    if (random() % 2) pump();
    if (random() % 3 == 0) client.collect();
    if (random() % 4 == 0) client.reconnect();
  }
  client.reconnect();
  expect_well();
}

// Every word of the page at random, between valid and half requests.
TEST_F(BadGuest, ScribblesOverThePage) {
  std::mt19937 random{7};
  for (int i = 0; i < 20000; ++i) {
    if (random() % 3 == 0) {
      client.put_bytes(XenstoreClient::message(random() % 24, i, random() % 3, z("data/a") + z("n7")));
    } else {
      const std::size_t word = random() % 4 ? 512 + random() % 7 : random() % 519;
      const u32 value = random() % 2 ? random() % 3 : random();
      std::memcpy(page.bytes + 4 * word, &value, 4);
    }
    pump();
  }
  client.reconnect();
  expect_well();
  EXPECT_EQ(other->read(0, "name"), "zone8");
}

TEST_F(BadGuest, CannotTouchOthersWhateverItSends) {
  const std::string theirs = "/local/domain/8";
  const std::string before = other->read(0, "name").value();
  for (const std::string& path : {theirs, theirs + "/data", theirs + "/name", std::string{"/local/domain/0/name"},
                                  std::string{"/local"}, std::string{"/"}, std::string{"/tool"}})
    for (const u32 t : {0u, client.begin()}) {
      EXPECT_EQ(client.write(path + (path == "/" ? "x" : "/x"), "evil", t), "EACCES");
      EXPECT_EQ(client.text(XS_SET_PERMS, z(path) + z("n7"), t), "EACCES");
      EXPECT_NE(client.text(XS_RM, z(path), t), "OK");
      EXPECT_EQ(client.text(XS_MKDIR, z(path + "/x/y"), t), path == "/" ? "EINVAL" : "EACCES");
      if (t != 0) {
        EXPECT_EQ(client.end(t), "OK");
      }
    }
  EXPECT_EQ(other->read(0, "name"), before);
}

}  // namespace
}  // namespace bulkhead::device::xenbus::store
