#include "device/core/fs/byte_channel.h"

#include <gtest/gtest.h>

#include <chrono>
#include <set>

#include "support/fake_file_server.h"

namespace bulkhead::device {
namespace {

using test::FakeFileServer, test::fuse_request;

struct Rig {
  explicit Rig(std::size_t reply_bytes = 0)
      : server{2,
               [=](const fuse_in_header& header, std::string_view body) -> std::string {
                 if (header.opcode == FUSE_FORGET) return {};
                 return FakeFileServer::reply(header,
                                              reply_bytes > 0 ? std::string(reply_bytes, 'r') : std::string{body});
               }},
        core{server.take_lanes()},
        channel{core} {
    channel.set_callbacks([] {}, [this] { writable = true; });
  }
  // All of it, as long as that takes.
  void send(std::string_view bytes) {
    while (!bytes.empty()) bytes.remove_prefix(channel.write(std::as_bytes(std::span{bytes})));
  }
  std::string receive(std::size_t size) {
    std::string out;
    while (out.size() < size) {
      char piece[5000];
      const std::size_t got = channel.read(
          std::as_writable_bytes(std::span{piece}).first(std::min<std::size_t>(sizeof piece, size - out.size())));
      out.append(piece, got);
      if (got == 0) std::this_thread::yield();
    }
    return out;
  }
  bool nothing_comes() {
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
    std::byte byte;
    return channel.read({&byte, 1}) == 0;
  }

  FakeFileServer server;
  FsCore core;
  FsByteChannel channel;
  std::atomic<bool> writable{false};
};

TEST(FsByteChannel, MessagesInAnyPieces) {
  Rig rig;
  for (const std::size_t piece : {1u, 7u, 41u, 1000u}) {
    std::string all;
    for (int i = 0; i < 5; ++i) all += fuse_request(FUSE_GETATTR, std::string(100, static_cast<char>('0' + i)));
    for (std::size_t at = 0; at < all.size(); at += piece) rig.send(std::string_view{all}.substr(at, piece));
    std::multiset<char> bodies;
    for (int i = 0; i < 5; ++i) bodies.insert(rig.receive(116)[16]);  // in any order: lanes are parallel
    EXPECT_EQ(bodies, (std::multiset<char>{'0', '1', '2', '3', '4'}));
  }
}

TEST(FsByteChannel, WholeMegabytes) {
  Rig rig;
  const std::string body(1 << 20, 'w');
  for (int i = 0; i < 5; ++i) {
    rig.send(fuse_request(FUSE_WRITE, body));
    EXPECT_EQ(rig.receive(16 + body.size()).substr(16), body);
  }
}

TEST(FsByteChannel, ForgetsAndInterruptsHaveNoReply) {
  Rig rig;
  for (int i = 0; i < 100; ++i)
    rig.send(fuse_request(FUSE_FORGET, "12345678") + fuse_request(FUSE_INTERRUPT, "12345678"));
  rig.send(fuse_request(FUSE_GETATTR, "x"));
  EXPECT_EQ(rig.receive(17)[16], 'x');
  EXPECT_TRUE(rig.nothing_comes());
  EXPECT_EQ(rig.core.requests(FUSE_INTERRUPT), 0u);
}

TEST(FsByteChannel, ANewConnectionHearsNothingOfTheOld) {
  Rig rig;
  rig.channel.guest_open(true);
  rig.server.held = true;
  rig.send(fuse_request(FUSE_GETATTR, "old") + fuse_request(FUSE_GETATTR, "old").substr(0, 30));
  while (rig.core.depth() == 0) std::this_thread::yield();
  rig.channel.guest_open(false);
  rig.channel.guest_open(true);
  rig.server.held = false;
  rig.send(fuse_request(FUSE_GETATTR, "new"));
  EXPECT_EQ(rig.receive(19).substr(16), "new");
  EXPECT_TRUE(rig.nothing_comes());
}

// Bad guests.

TEST(FsByteChannel, WhoDoesNotReadIsNotServed) {
  Rig rig{100'000};
  const std::string message = fuse_request(FUSE_READ, std::string(1000, 'x'));
  std::size_t sent = 0;
  for (int stuck = 0; stuck < 50;) {
    const std::size_t taken = rig.channel.write(std::as_bytes(std::span{message}));
    sent += taken;
    if (taken == message.size()) continue;
    ++stuck;
    std::this_thread::sleep_for(std::chrono::milliseconds{1});
    if (taken > 0) break;
  }
  // What is kept: messages up to the bound, and replies for some of them.
  EXPECT_LE(sent, FsByteChannel::kIncoming + 10 * message.size());
  EXPECT_LE(rig.server.requests(), FsByteChannel::kOutgoing / 100'000 + 3);
}

TEST(FsByteChannel, LengthsThatCannotBeEndIt) {
  for (const u32 length : {0u, 39u, 0xffffffffu, FsCore::kMaxMessage + 1}) {
    Rig rig;
    std::string message = fuse_request(FUSE_GETATTR, "x");
    std::memcpy(message.data(), &length, sizeof length);
    rig.send(message);
    rig.send(fuse_request(FUSE_GETATTR, "y"));
    EXPECT_TRUE(rig.nothing_comes());
    rig.send(std::string(5 << 20, 'x'));  // is taken and goes nowhere
    EXPECT_EQ(rig.server.requests(), 0u);
    EXPECT_EQ(rig.core.counters()[FsCore::kMalformed].value(), 1u);
    rig.channel.guest_open(true);
    rig.send(fuse_request(FUSE_GETATTR, "z"));
    EXPECT_EQ(rig.receive(17)[16], 'z') << "a new connection starts over";
  }
}

}  // namespace
}  // namespace bulkhead::device
