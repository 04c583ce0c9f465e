#include "device/virtio/net/net.h"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "device/virtio/mmio/mmio.h"
#include "net/testing/memory_end.h"
#include "net/testing/packets.h"
#include "support/hostile_guest.h"

namespace bulkhead::device::virtio {
namespace {

using namespace spec::virtio;
using namespace spec::virtio::net;
using bulkhead::net::FrameHeader;
using bulkhead::net::kGsoTcp4;
using bulkhead::net::kNeedsChecksum;
using bulkhead::net::MacAddress;
using bulkhead::net::testing::Frame;
using bulkhead::net::testing::make_packet;
using bulkhead::net::testing::MemoryEnd;
using test::DriverBuffer;
using test::RingOptions;

constexpr MacAddress kMac{2, 0, 0, 0, 0, 7};
constexpr u64 kAll = ~u64{0} & ~(kFeaturePacked | kFeatureIndirect | kFeatureEventIndex);

// Everything from guest to packet end.
struct Rig {
  explicit Rig(unsigned pairs = 1, bulkhead::net::Offloads takes = bulkhead::net::kAllOffloads, NetSettings more = {})
      : end{pairs, takes}, settings{with(more, pairs)} {}
  static NetSettings with(NetSettings all, unsigned pairs) {
    all.mac = kMac;
    all.queues = pairs;
    return all;
  }
  bool up(RingOptions rings = {}, u64 features = kAll, u16 size = 16) {
    return guest.bring_up(features, rings, 2 * core.pair_count() + 1, size);
  }
  static std::string with_header(const FrameHeader& header, std::string_view frame) {
    std::string bytes(kHeaderBytes, '\0');
    std::memcpy(bytes.data(), &header, sizeof header);
    return bytes.append(frame);
  }
  void send(std::string_view frame, const FrameHeader& header = {}, unsigned pair = 0) {
    const std::string bytes = with_header(header, frame);
    ASSERT_TRUE(guest.queue(2 * pair + 1).add({{guest.put(bytes), static_cast<u32>(bytes.size()), false}}));
    guest.kick(2 * pair + 1);
  }
  // A buffer of `size` in the receive queue; where it is.
  Gpa offer(u32 size, unsigned pair = 0) {
    const Gpa at = guest.put(std::string(size, '\xee'));
    EXPECT_TRUE(guest.queue(2 * pair).add({{at, size, true}}));
    guest.kick(2 * pair);
    return at;
  }
  // One control command; the status byte.
  u8 control(u8 kind, u8 which, std::string_view data) {
    const Gpa head = guest.put(std::string{static_cast<char>(kind), static_cast<char>(which)});
    const Gpa body = guest.put(data), status = guest.put("\xee");
    const unsigned index = 2 * core.pair_count();
    guest.queue(index).add({{head, 2, false}, {body, static_cast<u32>(data.size()), false}, {status, 1, true}});
    guest.kick(index);
    EXPECT_TRUE(guest.queue(index).poll());
    return static_cast<u8>(guest.get(status, 1)[0]);
  }
  u64 out(NetCore::CounterIndex what, unsigned pair = 0) { return core.out(pair).counters[what].value(); }
  u64 in(NetCore::CounterIndex what, unsigned pair = 0) { return core.in(pair).counters[what].value(); }
  template <class Predicate>
  static bool soon(Predicate predicate) {
    for (int i = 0; i < 30'000; ++i) {
      if (predicate()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds{1});
    }
    return false;
  }

  MemoryEnd end;
  NetSettings settings;
  GuestMemory memory = *GuestMemory::create_pc(16_MiB);
  NetCore core{end, settings};
  VirtioNet net{core};
  test::RecordingIrq irq;
  VirtioMmio mmio{net, memory, irq};
  std::optional<test::VirtioGuest> driver{std::in_place, mmio, memory};
  test::VirtioGuest& guest = *driver;
};

std::string plain(std::size_t size, char fill = 'x') {
  return std::string("\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x07\x88\xb5", 14) + std::string(size, fill);
}

class NetRingTest : public ::testing::TestWithParam<RingOptions> {};
INSTANTIATE_TEST_SUITE_P(Rings, NetRingTest,
                         ::testing::Values(RingOptions{false, false, false}, RingOptions{false, true, true},
                                           RingOptions{true, false, false}, RingOptions{true, true, true}));

TEST_P(NetRingTest, FramesGoOutAsTheyAre) {
  Rig rig;
  ASSERT_TRUE(rig.up(GetParam()));
  for (unsigned i = 0; i < 200; ++i) {
    rig.send(plain(i * 20, static_cast<char>(i)));
    EXPECT_EQ(rig.end.queues[0].next().bytes, plain(i * 20, static_cast<char>(i)));
    rig.guest.wait_used(1);
  }
  EXPECT_EQ(rig.core.out(0).latency.count(), 200u);
}

TEST_P(NetRingTest, LargeFramesComeInMergedBuffersAllAtOnce) {
  Rig rig;
  ASSERT_TRUE(rig.up(GetParam()));
  for (unsigned lap = 0; lap < 20; ++lap) {
    std::vector<Gpa> buffers;
    for (int i = 0; i < 10; ++i) buffers.push_back(rig.offer(1000));
    const std::string frame = plain(4500, static_cast<char>('a' + lap));
    rig.end.queues[0].put(frame);
    std::string got;
    u32 first = rig.guest.wait_used(0).length;
    EXPECT_EQ(first, 1000u);
    got += rig.guest.get(buffers[0], first);
    u16 count = 0;
    std::memcpy(&count, &got[kBufferCountAt], sizeof count);
    ASSERT_EQ(count, 5u);
    for (u16 i = 1; i < count; ++i) {
      const auto used = rig.guest.queue(0).poll();  // there without waiting
      ASSERT_TRUE(used);
      got += rig.guest.get(buffers[i], used->length);
    }
    EXPECT_EQ(got.substr(kHeaderBytes), frame);
    rig.end.queues[0].put(plain(4000));
    for (int i = 0; i < 5; ++i) rig.guest.wait_used(0);
  }
}

TEST(Net, SaysWhatItIs) {
  Rig rig{4};
  ASSERT_TRUE(rig.up());
  EXPECT_EQ(rig.guest.read(0x100), 0x00000002u);
  EXPECT_EQ(rig.guest.read(0x104), u32{0x0700} | u32{kStatusLinkUp} << 16);
  EXPECT_EQ(rig.guest.read(0x108), 4u | 1500u << 16);
}

TEST(Net, WhatTheEndCannotDoIsDoneHere) {
  Rig rig{1, 0};
  ASSERT_TRUE(rig.up());
  const auto packet = make_packet(std::string(5000, 'p'));
  rig.send(packet.bytes, {kNeedsChecksum, kGsoTcp4, 0, 1400, static_cast<u16>(packet.transport), 16});
  std::string payload;
  for (int i = 0; i < 4; ++i) {
    const Frame one = rig.end.queues[0].next();
    EXPECT_EQ(one.header.gso, 0);
    EXPECT_TRUE(bulkhead::net::testing::sums_are_right(one.bytes, packet.network, packet.transport, false, false));
    payload += one.bytes.substr(packet.payload);
  }
  EXPECT_EQ(payload, std::string(5000, 'p'));
  rig.send(packet.bytes, {kNeedsChecksum, 0, 0, 0, static_cast<u16>(packet.transport), 16});
  EXPECT_TRUE(bulkhead::net::testing::sums_are_right(rig.end.queues[0].next().bytes, packet.network, packet.transport,
                                                     false, false));
}

TEST(Net, WhatTheDriverDoesNotTakeIsDoneHere) {
  Rig rig;
  ASSERT_TRUE(rig.up({}, kAll & ~(kFeatureGuestTso4 | kFeatureGuestChecksum)));
  EXPECT_EQ(rig.end.accepted, 0);
  const auto packet = make_packet(std::string(2000, 'p'));
  const Gpa first = rig.offer(2000), second = rig.offer(2000);
  rig.end.queues[0].put(packet.bytes, {kNeedsChecksum, kGsoTcp4, 0, 1000, static_cast<u16>(packet.transport), 16});
  for (const Gpa at : {first, second}) {
    const u32 length = rig.guest.wait_used(0).length;
    const std::string got = rig.guest.get(at, length);
    EXPECT_EQ(got.substr(0, 10), std::string(10, '\0'));
    EXPECT_TRUE(bulkhead::net::testing::sums_are_right(got.substr(kHeaderBytes), packet.network, packet.transport,
                                                       false, false));
  }
}

TEST(Net, ControlQueue) {
  Rig rig{2};
  ASSERT_TRUE(rig.up());
  EXPECT_EQ(rig.end.active, 1u);
  EXPECT_EQ(rig.control(kClassMultiQueue, kMultiQueuePairs, std::string("\2\0", 2)), kControlOk);
  EXPECT_EQ(rig.end.active, 2u);
  rig.send(plain(10), {}, 1);
  EXPECT_EQ(rig.end.queues[1].next().bytes, plain(10));
  const u64 only_sums = kFeatureGuestChecksum;
  EXPECT_EQ(rig.control(kClassOffloads, kOffloadsSet, {reinterpret_cast<const char*>(&only_sums), 8}), kControlOk);
  EXPECT_EQ(rig.end.accepted, bulkhead::net::kChecksum);
  // From here on only what is for us.
  EXPECT_EQ(rig.control(kClassRx, kRxPromiscuous, std::string("\0", 1)), kControlOk);
  rig.offer(2000);
  rig.end.queues[0].put(std::string("\x02\0\0\0\0\x55", 6) + std::string(60, 'n'));
  const std::string ours = std::string("\x02\0\0\0\0\x07", 6) + std::string(60, 'y');
  rig.end.queues[0].put(ours);
  EXPECT_EQ(rig.guest.wait_used(0).length, kHeaderBytes + ours.size());
  EXPECT_EQ(rig.in(NetCore::kDropped), 1u);
}

TEST(Net, ControlQueueRefusesNonsense) {
  Rig rig{2};
  ASSERT_TRUE(rig.up());
  const auto refused = [&](u8 kind, u8 which, std::string_view data) {
    return rig.control(kind, which, data) == kControlError;
  };
  EXPECT_TRUE(refused(99, 0, "x"));
  EXPECT_TRUE(refused(kClassMultiQueue, kMultiQueuePairs, std::string("\0\0", 2)));
  EXPECT_TRUE(refused(kClassMultiQueue, kMultiQueuePairs, std::string("\3\0", 2)));
  EXPECT_TRUE(refused(kClassMultiQueue, 7, std::string("\1\0", 2)));
  EXPECT_TRUE(refused(kClassRx, 9, "\1"));
  EXPECT_TRUE(refused(kClassRx, kRxPromiscuous, "\2"));
  EXPECT_TRUE(refused(kClassMac, kMacAddress, "\1\2\3\4\5\6"));
  EXPECT_TRUE(refused(kClassMac, kMacAddress, "\2\2"));
  EXPECT_TRUE(refused(kClassMac, kMacTable, std::string("\xff\xff\xff\xff", 4)));
  EXPECT_TRUE(refused(kClassMac, kMacTable, std::string("\2\0\0\0abcdef", 10)));
  EXPECT_TRUE(refused(kClassOffloads, kOffloadsSet, "\1\1\1\1\1\1\1\1"));
  EXPECT_FALSE(rig.guest.needs_reset());
  EXPECT_FALSE(refused(kClassMac, kMacTable, std::string("\0\0\0\0\1\0\0\0\1abcde", 14)));
}

// ---- bad guests

TEST(Net, HeadersThatCannotBeCostTheirFrame) {
  Rig rig;
  ASSERT_TRUE(rig.up());
  const auto packet = make_packet(std::string(3000, 'p'));
  const auto start = static_cast<u16>(packet.transport);
  const FrameHeader bad[] = {
      {kNeedsChecksum, 0, 0, 0, 0xffff, 0xffff},
      {kNeedsChecksum, 0, 0, 0, static_cast<u16>(packet.bytes.size() - 1), 0},
      {0, kGsoTcp4, 0, 1400, start, 16},
      {kNeedsChecksum, kGsoTcp4, 0, 0, start, 16},
      {kNeedsChecksum, 2, 0, 1400, start, 16},
      {kNeedsChecksum, 0x7f, 0, 1400, start, 16},
      {kNeedsChecksum, 0x80, 0, 1400, start, 16},
      {kNeedsChecksum, 0x85, 0, 1400, start, 16},
  };
  for (const FrameHeader& header : bad) {
    rig.send(packet.bytes, header);
    rig.guest.wait_used(1);
  }
  rig.send("short");
  rig.guest.wait_used(1);
  rig.send(std::string(70'000, 'l'));
  rig.guest.wait_used(1);
  EXPECT_EQ(rig.out(NetCore::kBad), std::size(bad) + 2);
  EXPECT_EQ(rig.end.queues[0].sent(), 0u);
  rig.send(packet.bytes, {kNeedsChecksum, kGsoTcp4, 0xffff, 1400, start, 16});
  EXPECT_LE(rig.end.queues[0].next().header.header_bytes, packet.bytes.size()) << "a hint is made one that can be";
  EXPECT_FALSE(rig.guest.needs_reset());
}

TEST(Net, OffloadsThatWereNotAgreedOnAreRefused) {
  Rig rig;
  ASSERT_TRUE(rig.up({}, kAll & ~(kFeatureHostTso4 | kFeatureChecksum)));
  const auto packet = make_packet(std::string(3000, 'p'));
  rig.send(packet.bytes, {kNeedsChecksum, kGsoTcp4, 0, 1400, 34, 16});
  rig.guest.wait_used(1);
  rig.send(packet.bytes, {kNeedsChecksum, 0, 0, 0, 34, 16});
  rig.guest.wait_used(1);
  EXPECT_EQ(rig.out(NetCore::kBad), 2u);
}

TEST(Net, ChainsWithoutAHeaderAreGivenBack) {
  Rig rig;
  ASSERT_TRUE(rig.up());
  rig.guest.queue(1).add({{rig.guest.put("abc"), 3, false}});
  rig.guest.kick(1);
  rig.guest.wait_used(1);
  rig.guest.queue(1).add({{rig.guest.put(plain(50)), 60, false}, {rig.guest.allocate(10), 10, true}});
  rig.guest.kick(1);
  rig.guest.wait_used(1);
  EXPECT_EQ(rig.out(NetCore::kBad), 2u);
  EXPECT_FALSE(rig.guest.needs_reset());
}

TEST(Net, ARingThatIsNotDrainedHoldsOneFrame) {
  Rig rig;
  ASSERT_TRUE(rig.up());
  for (int i = 0; i < 1000; ++i) rig.end.queues[0].put(plain(1000));
  EXPECT_TRUE(Rig::soon([&] { return rig.end.queues[0].waiting() == 999; }));
  rig.send(plain(10));  // the other way is not held up
  EXPECT_EQ(rig.end.queues[0].next().bytes, plain(10));
  EXPECT_EQ(rig.end.queues[0].waiting(), 999u);
  for (int i = 0; i < 1000; ++i) {
    rig.offer(1200);
    EXPECT_EQ(rig.guest.wait_used(0).length, kHeaderBytes + 1014u);
  }
}

TEST(Net, AFullEndHoldsOneFrameAndLeavesTheRestInTheRing) {
  Rig rig;
  ASSERT_TRUE(rig.up());
  rig.end.queues[0].set_full(true);
  for (int i = 0; i < 16; ++i) rig.send(plain(100, static_cast<char>('a' + i)));
  std::this_thread::sleep_for(std::chrono::milliseconds{20});
  EXPECT_FALSE(rig.guest.queue(1).poll());
  rig.end.queues[0].set_full(false);
  for (int i = 0; i < 16; ++i) EXPECT_EQ(rig.end.queues[0].next().bytes, plain(100, static_cast<char>('a' + i)));
}

TEST(Net, BuffersThatNoFrameFitsIn) {
  Rig rig;
  ASSERT_TRUE(rig.up({}, kAll, 4));
  for (int i = 0; i < 4; ++i) rig.offer(1);  // the whole ring, and not even a header's worth
  rig.end.queues[0].put(plain(100));
  EXPECT_TRUE(Rig::soon([&] { return rig.in(NetCore::kTooLarge) == 1; }));
  Rig other;  // without merging, a frame must fit one buffer
  ASSERT_TRUE(other.up({}, kAll & ~kFeatureMergeable));
  other.offer(50);
  other.end.queues[0].put(plain(100));
  other.end.queues[0].put(plain(10));
  EXPECT_EQ(other.guest.wait_used(0).length, kHeaderBytes + 24u);
  EXPECT_EQ(other.in(NetCore::kTooLarge), 1u);
}

TEST(Net, ALimitHoldsTheNextFrameBack) {
  NetSettings limited;
  limited.out.packets = {5, 2};
  Rig rig{1, bulkhead::net::kAllOffloads, limited};
  ASSERT_TRUE(rig.up());
  for (int i = 0; i < 4; ++i) rig.send(plain(100));
  for (int i = 0; i < 4; ++i) EXPECT_EQ(rig.end.queues[0].next().bytes, plain(100)) << "late, but not lost";
  EXPECT_GE(rig.out(NetCore::kThrottled), 1u);
}

TEST(Net, ADeadEndIsALinkThatIsDown) {
  Rig rig;
  ASSERT_TRUE(rig.up());
  rig.end.queues[0].die();
  EXPECT_TRUE(Rig::soon([&] { return !rig.core.link_up(); }));
  EXPECT_EQ(rig.guest.read(0x104) >> 16, 0u);
  EXPECT_TRUE(rig.irq.raised() > 0);
  rig.send(plain(10));
  rig.guest.wait_used(1);
  EXPECT_EQ(rig.out(NetCore::kDropped), 1u);
}

TEST(Net, ResetsAndQueueStopsAtAnyMoment) {
  Rig rig{2};
  for (int lap = 0; lap < 100; ++lap) {
    ASSERT_TRUE(rig.up({lap % 2 != 0, true, true}, kAll));
    rig.control(kClassMultiQueue, kMultiQueuePairs, std::string("\2\0", 2));
    rig.end.queues[1].set_full(lap % 3 == 0);
    for (int i = 0; i < 4; ++i) {
      rig.send(plain(10), {}, 0);
      rig.send(plain(3000), {}, 1);
      rig.offer(500, i % 2);
      rig.end.queues[0].put(plain(3000));
    }
    if (lap % 4 == 0) {
      rig.guest.write(0x30, 3);
      rig.guest.write(0x44, 0);
    }
    rig.guest.write(0x70, 0);
    rig.driver.emplace(rig.mmio, rig.memory);
  }
  EXPECT_FALSE(rig.guest.needs_reset());
}

TEST(NetHostile, SurvivesAndWorksAfterwards) {
  for (u64 seed = 0; seed < 4; ++seed) {
    Rig rig{2};
    test::HostileGuest hostile{rig.mmio, rig.memory, seed};
    hostile.touch_registers(20'000, 5);
    for (int i = 0; i < 50; ++i) rig.end.queues[0].put(plain(static_cast<std::size_t>(i) * 100));
    hostile.corrupt_rings(300, 5, kAll);
    rig.driver.emplace(rig.mmio, rig.memory);
    ASSERT_TRUE(rig.up());
    rig.send(plain(77, 'z'));
    while (rig.end.queues[0].next().bytes != plain(77, 'z')) {
    }
  }
}

}  // namespace
}  // namespace bulkhead::device::virtio
