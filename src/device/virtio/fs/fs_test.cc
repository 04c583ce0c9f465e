#include "device/virtio/fs/fs.h"

#include <gtest/gtest.h>

#include "device/virtio/mmio/mmio.h"
#include "support/fake_file_server.h"
#include "support/hostile_guest.h"

namespace bulkhead::device::virtio {
namespace {

using test::FakeFileServer, test::fuse_request, test::RingOptions;

std::string echo(const fuse_in_header& header, std::string_view body) {
  if (header.opcode == FUSE_FORGET || header.opcode == FUSE_BATCH_FORGET) return {};
  return FakeFileServer::reply(header, body);
}

struct Rig {
  explicit Rig(FakeFileServer::Answer answer = echo, unsigned lanes = 3)
      : server{lanes, std::move(answer)}, core{server.take_lanes()}, fs{core, "bulkhead"} {}
  bool up(RingOptions rings = {}) { return guest.bring_up(0, rings, 2, 16); }
  // The reply's bytes, as many as the device says it wrote.
  std::string ask(std::string_view message, u32 room, unsigned queue = 1) {
    const Gpa in = guest.allocate(room + 16);
    std::vector<test::DriverBuffer> buffers;
    if (!message.empty()) buffers.push_back({guest.put(message), static_cast<u32>(message.size()), false});
    if (room > 0) buffers.push_back({in, room, true});
    guest.queue(queue).add(buffers);
    guest.kick(queue);
    return guest.get(in, guest.wait_used(queue).length);
  }
  static int error_of(const std::string& reply) {
    fuse_out_header header{};
    if (reply.size() >= sizeof header) std::memcpy(&header, reply.data(), sizeof header);
    return -header.error;
  }

  GuestMemory memory = *GuestMemory::create_pc(16_MiB);
  FakeFileServer server;
  FsCore core;
  VirtioFs fs;
  test::RecordingIrq irq;
  VirtioMmio mmio{fs, memory, irq};
  test::VirtioGuest guest{mmio, memory};
};

class FsTest : public ::testing::TestWithParam<RingOptions> {};
INSTANTIATE_TEST_SUITE_P(Rings, FsTest,
                         ::testing::Values(RingOptions{false, false, false}, RingOptions{false, true, true},
                                           RingOptions{true, false, false}, RingOptions{true, true, true}));

TEST_P(FsTest, RequestsComeBackAnswered) {
  Rig rig;
  ASSERT_TRUE(rig.up(GetParam()));
  for (int i = 0; i < 100; ++i) {
    const std::string body(static_cast<std::size_t>(i) * 97, static_cast<char>('a' + i % 26));
    const std::string reply = rig.ask(fuse_request(FUSE_GETATTR, body), 12000);
    ASSERT_EQ(reply.size(), sizeof(fuse_out_header) + body.size());
    EXPECT_EQ(reply.substr(sizeof(fuse_out_header)), body);
  }
  EXPECT_EQ(rig.core.requests(FUSE_GETATTR), 100u);
  EXPECT_EQ(rig.core.latency(FUSE_GETATTR).count(), 100u);
  EXPECT_EQ(rig.core.depth(), 0u);
}

TEST_P(FsTest, ManyInFlightInAnyOrder) {
  Rig rig;
  ASSERT_TRUE(rig.up(GetParam()));
  const Gpa message = rig.guest.put(fuse_request(FUSE_GETATTR, "body"));
  const Gpa in = rig.guest.allocate(64 * 16);
  unsigned sent = 0, done = 0;
  while (done < 2000) {
    while (sent < 2000 && rig.guest.queue(1).add({{message, 44, false}, {in + 64 * (sent % 16), 64, true}})) ++sent;
    rig.guest.kick(1);
    while (rig.guest.queue(1).poll()) ++done;
  }
  EXPECT_EQ(rig.core.counters()[FsCore::kReplies].value(), 2000u);
  EXPECT_LE(rig.core.deepest(), 3u);
}

TEST(Fs, ConfigurationSpace) {
  Rig rig;
  EXPECT_EQ(rig.guest.read(8), 26u);
  std::string tag;
  for (u64 i = 0; i < 36; ++i) tag.push_back(static_cast<char>(rig.mmio.read(0x100 + i, AccessSize::k1).value));
  EXPECT_EQ(tag, std::string{"bulkhead"} + std::string(28, '\0'));
  EXPECT_EQ(rig.mmio.read(0x100 + 36, AccessSize::k4).value, 1u);
  EXPECT_EQ(rig.mmio.read(0x100 + 40, AccessSize::k4).value, 0u);
}

TEST(Fs, WholeMegabytesGoBothWays) {
  Rig rig;
  ASSERT_TRUE(rig.up());
  std::string body(1 << 20, 'x');
  for (std::size_t i = 0; i < body.size(); i += 1000) body[i] = static_cast<char>(i / 1000);
  const std::string reply = rig.ask(fuse_request(FUSE_WRITE, body), (1 << 20) + 100);
  EXPECT_EQ(reply.substr(sizeof(fuse_out_header)), body);
}

TEST(Fs, ForgetsHaveNoReply) {
  Rig rig;
  ASSERT_TRUE(rig.up());
  for (int i = 0; i < 200; ++i) EXPECT_EQ(rig.ask(fuse_request(FUSE_FORGET, "12345678"), 0, 0), "");
  EXPECT_EQ(rig.ask(fuse_request(FUSE_GETATTR, "x"), 100).size(), sizeof(fuse_out_header) + 1);
  EXPECT_EQ(rig.server.requests(), 201u);
}

TEST(Fs, ResetDoesNotWaitForTheServer) {
  Rig rig;
  ASSERT_TRUE(rig.up());
  rig.server.held = true;
  for (int i = 0; i < 3; ++i)
    rig.guest.queue(1).add(
        {{rig.guest.put(fuse_request(FUSE_READ, "x")), 41, false}, {rig.guest.allocate(4096), 4096, true}});
  rig.guest.kick(1);
  while (rig.core.depth() < 3) std::this_thread::yield();
  rig.guest.write(0x70, 0);
  EXPECT_EQ(rig.guest.status(), 0);
  rig.server.held = false;
  ASSERT_TRUE(rig.up({true, true, true}));
  EXPECT_EQ(rig.ask(fuse_request(FUSE_GETATTR, "again", 8), 100).substr(sizeof(fuse_out_header)), "again");
}

TEST(Fs, WithoutAServerRequestsFail) {
  Rig rig;
  ASSERT_TRUE(rig.up());
  EXPECT_EQ(Rig::error_of(rig.ask(fuse_request(FUSE_GETATTR, "x"), 100)), 0);
  rig.server.end();
  for (int i = 0; i < 300; ++i) {
    const int error = Rig::error_of(rig.ask(fuse_request(FUSE_GETATTR, "x"), 100));
    EXPECT_TRUE(error == ENOTCONN || error == EIO) << error;
  }
  EXPECT_EQ(rig.ask(fuse_request(FUSE_FORGET, "12345678"), 0, 0), "");
  EXPECT_EQ(rig.core.counters()[FsCore::kServerLost].value(), 3u);
}

// Bad guests.

TEST(Fs, MessagesThatAreNone) {
  Rig rig;
  ASSERT_TRUE(rig.up());
  const auto einval = [&](const std::string& reply) { return Rig::error_of(reply) == EINVAL; };
  EXPECT_TRUE(einval(rig.ask("", 100)));
  EXPECT_TRUE(einval(rig.ask(std::string(39, 'x'), 100)));
  EXPECT_TRUE(einval(rig.ask(fuse_request(FUSE_GETATTR, "x").substr(0, 40), 100))) << "shorter than it says";
  EXPECT_TRUE(einval(rig.ask(fuse_request(FUSE_GETATTR, "x") + "y", 100))) << "longer than it says";
  EXPECT_TRUE(einval(rig.ask(fuse_request(FUSE_WRITE, std::string(2 << 20, 'x')), 100))) << "longer than any";
  EXPECT_EQ(rig.ask(fuse_request(FUSE_GETATTR, "x"), 15), "") << "no room for any reply";
  EXPECT_EQ(rig.ask(fuse_request(FUSE_GETATTR, "x"), 0), "");
  EXPECT_EQ(rig.server.requests(), 0u);
  EXPECT_EQ(rig.core.counters()[FsCore::kMalformed].value(), 7u);
  EXPECT_FALSE(rig.guest.needs_reset());
}

TEST(Fs, RepliesThatDoNotFitAreErrors) {
  Rig rig{[](const fuse_in_header& header, std::string_view) {
    return FakeFileServer::reply(header, std::string(200'000, 'r'));
  }};
  ASSERT_TRUE(rig.up());
  const std::string reply = rig.ask(fuse_request(FUSE_READ, "x"), 5000);
  EXPECT_EQ(reply.size(), sizeof(fuse_out_header));
  EXPECT_EQ(Rig::error_of(reply), EIO);
  EXPECT_EQ(rig.ask(fuse_request(FUSE_READ, "x"), 201'000).size(), 200'016u) << "and the lane goes on";
}

TEST(FsHostile, SurvivesAndWorksAfterwards) {
  Rig rig;
  for (u64 seed = 0; seed < 3; ++seed) {
    test::HostileGuest hostile{rig.mmio, rig.memory, seed};
    hostile.touch_registers(10000, 2);
    hostile.corrupt_rings(300, 2, 0);
    test::VirtioGuest guest{rig.mmio, rig.memory};
    ASSERT_TRUE(guest.bring_up(0, {seed % 2 == 0, true, true}, 2, 8));
    const std::string message = fuse_request(FUSE_GETATTR, "x");
    guest.queue(1).add({{guest.put(message), static_cast<u32>(message.size()), false}, {guest.allocate(64), 64, true}});
    guest.kick(1);
    EXPECT_EQ(guest.wait_used(1).length, sizeof(fuse_out_header) + 1);
  }
}

// Bad servers: another process, which a guest may have taken over.

TEST(Fs, AServerThatLiesLosesItsLane) {
  const auto lying = [](fuse_out_header header, std::size_t size) {
    return [=](const fuse_in_header& to, std::string_view) {
      fuse_out_header out = header;
      if (out.unique == 0) out.unique = to.unique;
      return std::string{reinterpret_cast<const char*>(&out), sizeof out} + std::string(size, 'z');
    };
  };
  const std::vector<FakeFileServer::Answer> answers = {lying({15, 0, 0}, 0), lying({0xffffffff, 0, 0}, 0),
                                                       lying({16, 0, 999}, 0), lying({16, 0, 0}, 100)};
  for (const FakeFileServer::Answer& answer : answers) {
    Rig rig{answer, 1};
    ASSERT_TRUE(rig.up());
    EXPECT_EQ(Rig::error_of(rig.ask(fuse_request(FUSE_GETATTR, "x"), 100)), EIO);
    EXPECT_EQ(Rig::error_of(rig.ask(fuse_request(FUSE_GETATTR, "x"), 100)), ENOTCONN);
    EXPECT_FALSE(rig.guest.needs_reset());
  }
}

}  // namespace
}  // namespace bulkhead::device::virtio
