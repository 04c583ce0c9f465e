#include "device/xenbus/net/net_backend.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "device/xenbus/testing/netfront.h"
#include "net/testing/memory_end.h"
#include "net/testing/packets.h"

namespace bulkhead::device::xenbus {
namespace {

using net::testing::Frame;
using net::testing::make_packet;
using net::testing::MemoryEnd;
using testing::Netfront;
using testing::NetfrontOptions;
using testing::NetfrontQueue;
using testing::XenbusZone;

struct NetBackendTest : ::testing::Test {
  NetBackendTest() {
    auto made = std::make_unique<NetBackend>(core, zone.grants, zone.events, 0);
    backend = made.get();
    EXPECT_TRUE(zone.bus.add(0, std::move(made)));
  }
  static NetSettings settings() {
    NetSettings all;
    all.mac = {2, 0, 0, 0, 0, 7};
    all.queues = 2;
    return all;
  }
  // Frame bytes onto pages of `piece` bytes each; the slots.
  std::vector<netif_tx_request> slots(const std::string& frame, std::size_t piece, u16 first_flags = 0) {
    std::vector<netif_tx_request> all;
    for (std::size_t at = 0; at < frame.size(); at += piece) {
      const std::size_t size = std::min(piece, frame.size() - at);
      if (pool.size() == all.size()) pool.push_back(zone.grants.grant(false));
      const u32 page = pool[all.size()];
      std::memcpy(zone.grants.page(page) + 8, &frame[at], size);
      all.push_back({page, 8, NETTXF_more_data, static_cast<u16>(100 + all.size()), static_cast<u16>(size)});
    }
    all.back().flags = 0;
    all[0].flags |= first_flags;
    all[0].size = static_cast<u16>(frame.size());
    return all;
  }
  void send(NetfrontQueue& queue, const std::string& frame, std::size_t piece = 4000) {
    const auto all = slots(frame, piece);
    for (const auto& one : all) queue.put_out(one);
    queue.push_out();
    for (const auto& one : all) {
      const netif_tx_response response = queue.next_out();
      EXPECT_EQ(response.id, one.id);
      EXPECT_EQ(response.status, NETIF_RSP_OKAY);
    }
  }
  u64 bad() { return core.out(0).counters[NetCore::kBad].value(); }
  // Sends nonsense; its slots are answered with errors, and the ring goes on.
  void refused(NetfrontQueue& queue, const std::vector<netif_tx_request>& all) {
    const u64 before = bad();
    for (const auto& one : all) queue.put_out(one);
    queue.push_out();
    for (std::size_t i = 0; i < all.size(); ++i) {
      const i16 status = queue.next_out().status;
      EXPECT_TRUE(status == NETIF_RSP_ERROR || (i != 0 && status == NETIF_RSP_NULL)) << i << ": " << status;
    }
    EXPECT_GT(bad(), before);
    send(queue, std::string(100, 'g'));
    EXPECT_EQ(end.queues[0].next().bytes, std::string(100, 'g'));
  }

  MemoryEnd end{2};
  NetCore core{end, settings()};
  XenbusZone zone;
  NetBackend* backend = nullptr;
  std::vector<u32> pool;  // pages of frames on their way out
};

TEST_F(NetBackendTest, SaysWhatItIs) {
  Netfront front{zone};
  EXPECT_EQ(front.read("mac"), "02:00:00:00:00:07");
  EXPECT_EQ(front.read("feature-sg"), "1");
  EXPECT_EQ(front.read("feature-rx-copy"), "1");
  EXPECT_EQ(front.read("feature-gso-tcpv6"), "1");
  EXPECT_EQ(front.read("feature-split-event-channels"), "1");
  EXPECT_EQ(front.read("multi-queue-max-queues"), "2");
}

TEST_F(NetBackendTest, FramesGoBothWaysOnEachQueueAndRoundTheRing) {
  Netfront front{zone, {.queues = 2}};
  ASSERT_TRUE(front.connect());
  for (unsigned index : {0u, 1u}) {
    NetfrontQueue& queue = *front.queues[index];
    const u32 page = zone.grants.grant();
    for (unsigned i = 0; i < 600; ++i) {
      const std::string frame(60 + i * 7, static_cast<char>(i));
      send(queue, frame, 900);
      ASSERT_EQ(end.queues[index].next().bytes, frame);
      queue.offer(page, static_cast<u16>(i));
      end.queues[index].put(std::string(60 + i, static_cast<char>(i)));
      const netif_rx_response response = queue.next_in();
      ASSERT_EQ(response.status, static_cast<i16>(60 + i));
      ASSERT_EQ(response.id, static_cast<u16>(i));
      ASSERT_EQ(std::memcmp(zone.grants.page(page), std::string(60 + i, static_cast<char>(i)).data(), 60 + i), 0);
    }
  }
  EXPECT_TRUE(front.close());
}

TEST_F(NetBackendTest, OneEventChannelForBothRings) {
  Netfront front{zone, {.split = false}};
  ASSERT_TRUE(front.connect());
  send(*front.queues[0], std::string(100, 'a'));
  EXPECT_EQ(end.queues[0].next().bytes, std::string(100, 'a'));
}

TEST_F(NetBackendTest, SegmentationBothWays) {
  Netfront front{zone};
  ASSERT_TRUE(front.connect());
  NetfrontQueue& queue = *front.queues[0];
  const auto packet = make_packet(std::string(9000, 's'), {.version6 = true});
  const auto all = slots(packet.bytes, 4000, NETTXF_csum_blank | NETTXF_data_validated | NETTXF_extra_info);
  netif_extra_info extra{};
  extra.type = XEN_NETIF_EXTRA_TYPE_GSO;
  extra.u.gso.size = 1400;
  extra.u.gso.type = XEN_NETIF_GSO_TYPE_TCPV6;
  queue.put_out(all[0]);
  queue.put_out(extra);
  for (std::size_t i = 1; i < all.size(); ++i) queue.put_out(all[i]);
  queue.push_out();
  const Frame sent = end.queues[0].next();
  EXPECT_EQ(sent.bytes, packet.bytes);
  EXPECT_EQ(sent.header.gso, net::kGsoTcp6);
  EXPECT_EQ(sent.header.segment_bytes, 1400);
  EXPECT_EQ(sent.header.checksum_start, packet.transport);
  EXPECT_EQ(sent.header.checksum_offset, 16);
  EXPECT_EQ(queue.next_out().status, NETIF_RSP_OKAY);
  EXPECT_EQ(queue.next_out().status, NETIF_RSP_NULL);
  for (std::size_t i = 1; i < all.size(); ++i) EXPECT_EQ(queue.next_out().status, NETIF_RSP_OKAY);
  // And back.
  std::vector<u32> pages = zone.grants.grant_run(4);
  for (u16 i = 0; i < 4; ++i) queue.offer(pages[i], i);
  end.queues[0].put(packet.bytes,
                    {net::kNeedsChecksum, net::kGsoTcp6, 0, 1400, static_cast<u16>(packet.transport), 16});
  const netif_rx_response first = queue.next_in(), second = queue.next_in(), third = queue.next_in(),
                          last = queue.next_in();
  EXPECT_EQ(first.flags, NETRXF_more_data | NETRXF_extra_info | NETRXF_csum_blank | NETRXF_data_validated);
  netif_extra_info got;
  std::memcpy(&got, &second, sizeof got);
  EXPECT_EQ(got.type, XEN_NETIF_EXTRA_TYPE_GSO);
  EXPECT_EQ(got.u.gso.size, 1400);
  EXPECT_EQ(got.u.gso.type, XEN_NETIF_GSO_TYPE_TCPV6);
  EXPECT_EQ(third.id, 2);
  EXPECT_EQ(last.flags, 0);
  EXPECT_EQ(static_cast<std::size_t>(first.status + third.status + last.status), packet.bytes.size());
}

TEST_F(NetBackendTest, AFrontendThatTakesNothingGetsWholeFrames) {
  Netfront front{zone, {.sg = false, .gso = false, .checksum = false}};
  ASSERT_TRUE(front.connect());
  NetfrontQueue& queue = *front.queues[0];
  const auto packet = make_packet(std::string(2000, 'w'));
  const std::vector<u32> pages = zone.grants.grant_run(2);
  for (u16 i = 0; i < 2; ++i) queue.offer(pages[i], i);
  end.queues[0].put(packet.bytes,
                    {net::kNeedsChecksum, net::kGsoTcp4, 0, 1000, static_cast<u16>(packet.transport), 16});
  for (const u32 page : pages) {
    const netif_rx_response one = queue.next_in();
    EXPECT_EQ(one.flags, 0);
    const std::string got{reinterpret_cast<const char*>(zone.grants.page(page)), static_cast<std::size_t>(one.status)};
    EXPECT_TRUE(net::testing::sums_are_right(got, packet.network, packet.transport, false, false));
  }
  end.queues[0].put(std::string(5000, 'l'));  // more than one page
  end.queues[0].put(std::string(50, 's'));
  queue.offer(pages[0], 9);
  EXPECT_EQ(queue.next_in().status, 50);
  EXPECT_EQ(core.in(0).counters[NetCore::kTooLarge].value(), 1u);
}

TEST_F(NetBackendTest, TaggedFramesComeFinished) {
  Netfront front{zone};
  ASSERT_TRUE(front.connect());
  const auto packet = make_packet("v", {.vlan = true});
  const u32 page = zone.grants.grant();
  front.queues[0]->offer(page, 0);
  end.queues[0].put(packet.bytes, {net::kNeedsChecksum, 0, 0, 0, static_cast<u16>(packet.transport), 16});
  const netif_rx_response one = front.queues[0]->next_in();
  EXPECT_EQ(one.flags, 0);
  const std::string got{reinterpret_cast<const char*>(zone.grants.page(page)), static_cast<std::size_t>(one.status)};
  EXPECT_TRUE(net::testing::sums_are_right(got, packet.network, packet.transport, false, false));
}

// ---- bad guests

TEST_F(NetBackendTest, RequestsThatCannotBe) {
  Netfront front{zone};
  ASSERT_TRUE(front.connect());
  NetfrontQueue& queue = *front.queues[0];
  const u32 page = zone.grants.grant(false);
  refused(queue, {{page, 4000, 0, 1, 97}});                                         // over the page's end
  refused(queue, {{page, 0xffff, 0, 1, 0xffff}});                                   //
  refused(queue, {{99999, 0, 0, 1, 100}});                                          // no such grant
  refused(queue, {{page, 0, NETTXF_csum_blank, 1, 100}});                           // no transport to be seen
  refused(queue, {{page, 0, NETTXF_more_data, 1, 50}, {page, 0, 0, 2, 60}});        // parts more than the whole
  refused(queue, {{page, 0, NETTXF_more_data, 1, 100}, {page, 4090, 0, 2, 60}});    //
  refused(queue, {{page, 0, NETTXF_extra_info, 1, 100}, {1, 0xff, 0xffff, 3, 4}});  // extra without an end
  std::vector<netif_tx_request> many(NetQueue::kMaxSlots, {page, 0, NETTXF_more_data, 1, 10});
  many[0].size = 4000;
  refused(queue, many);
  zone.grants.revoke(page);
  refused(queue, {{page, 0, 0, 1, 100}});
}

TEST_F(NetBackendTest, ShortFramesAreAnsweredAndDropped) {
  Netfront front{zone};
  ASSERT_TRUE(front.connect());
  NetfrontQueue& queue = *front.queues[0];
  const u32 page = zone.grants.grant(false);
  for (const u16 size : {0, 1, 13}) {
    queue.put_out(netif_tx_request{page, 0, 0, size, size});
    queue.push_out();
    EXPECT_NE(queue.next_out().status, 99);
  }
  EXPECT_EQ(bad(), 3u);
  EXPECT_EQ(end.queues[0].sent(), 0u);
}

TEST_F(NetBackendTest, PagesForFramesThatAreNotOurs) {
  Netfront front{zone};
  ASSERT_TRUE(front.connect());
  NetfrontQueue& queue = *front.queues[0];
  queue.offer(zone.grants.grant(false), 1);  // read-only
  end.queues[0].put(std::string(100, 'x'));
  EXPECT_EQ(queue.next_in().status, NETIF_RSP_ERROR);
  queue.offer(zone.grants.grant(), 2);
  end.queues[0].put(std::string(100, 'y'));
  EXPECT_EQ(queue.next_in().status, 100);
}

TEST_F(NetBackendTest, AProducerThatRunsAwayStopsItsRingOnly) {
  Netfront front{zone, {.queues = 2}};
  ASSERT_TRUE(front.connect());
  std::atomic_ref{front.queues[0]->out.sring->req_prod}.store(5000);
  std::atomic_ref{front.queues[0]->in.sring->req_prod}.store(0x80000000);
  zone.events.raise(front.queues[0]->out_port);
  end.queues[0].put(std::string(100, 'x'));
  send(*front.queues[1], std::string(100, 'q'));
  EXPECT_EQ(end.queues[1].next().bytes, std::string(100, 'q'));
  EXPECT_TRUE(front.close());
}

TEST_F(NetBackendTest, SetUpsThatAreRefused) {
  Netfront flips{zone, {.copy = false}};
  ASSERT_TRUE(flips.await(State::kInitWait));
  flips.prepare();
  flips.say(State::kConnected);
  EXPECT_TRUE(flips.await(State::kClosing));
  EXPECT_TRUE(zone.bus.devices()[0].problem.contains("flipped"));
}

TEST_F(NetBackendTest, TooManyQueuesAreRefused) {
  Netfront greedy{zone, {.queues = 3}};
  ASSERT_TRUE(greedy.await(State::kInitWait));
  greedy.prepare();
  greedy.say(State::kConnected);
  EXPECT_TRUE(greedy.await(State::kClosing));
}

TEST_F(NetBackendTest, NoiseOnTheRingsIsSurvived) {
  std::mt19937_64 random{7};
  for (int lap = 0; lap < 20; ++lap) {
    Netfront front{zone};
    ASSERT_TRUE(front.connect());
    NetfrontQueue& queue = *front.queues[0];
    std::byte* const pages[] = {zone.grants.page(queue.out_page), zone.grants.page(queue.in_page)};
    for (int i = 0; i < 200; ++i) {
      for (int j = 0; j < 40; ++j) {
        const u64 word = random();
        std::memcpy(pages[random() % 2] + 64 + random() % 4024, &word, 8);
      }
      std::atomic_ref{queue.out.sring->req_prod}.fetch_add(static_cast<u32>(random() % 5));
      std::atomic_ref{queue.in.sring->req_prod}.fetch_add(static_cast<u32>(random() % 3));
      end.queues[0].put(std::string(random() % 9000, 'n'));
      zone.events.raise(queue.out_port);
    }
    ASSERT_TRUE(front.close());
    front.say(State::kInitialising);
  }
}

}  // namespace
}  // namespace bulkhead::device::xenbus
