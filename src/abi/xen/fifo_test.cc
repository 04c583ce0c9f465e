// Event channels in the FIFO ABI, with a guest that consumes its queues as the ABI says, and with worse ones.
#include "abi/xen/fifo.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "abi/xen/testing/fake_guest.h"

namespace bulkhead::abi::xen {
namespace {

constexpr u32 kPending = 1u << EVTCHN_FIFO_PENDING, kMasked = 1u << EVTCHN_FIFO_MASKED,
              kLinked = 1u << EVTCHN_FIFO_LINKED;
constexpr u64 kControl = 10, kArray = 12;  // pages

struct FifoTest : ::testing::Test {
  testing::FakeGuest g;
  FifoTest() {
    for (unsigned vcpu = 0; vcpu < g.kVcpus; ++vcpu) EXPECT_EQ(init(vcpu, g.frame(kControl + vcpu), 0), 0);
    for (u32 i = 0; i < 1024; ++i) word(i) = kMasked;
    EXPECT_EQ(expand(g.frame(kArray)), 0);
  }
  i64 init(u32 vcpu, u64 frame, u32 offset) {
    evtchn_init_control_t arg{frame, offset, vcpu, 0, {}};
    const i64 result = g.event_op(EVTCHNOP_init_control, arg);
    EXPECT_TRUE(result != 0 || arg.link_bits == EVTCHN_FIFO_LINK_BITS);
    return result;
  }
  i64 expand(u64 frame) { return g.event_op(EVTCHNOP_expand_array, evtchn_expand_array_t{frame}); }
  i64 unmask(u32 port) { return g.event_op(EVTCHNOP_unmask, evtchn_unmask_t{port}); }
  i64 priority(u32 port, u32 value) { return g.event_op(EVTCHNOP_set_priority, evtchn_set_priority_t{port, value}); }
  event_word_t& word(u32 port) { return (&g.at<event_word_t>(kArray))[port]; }
  evtchn_fifo_control_block_t& control(unsigned vcpu) { return g.at<evtchn_fifo_control_block_t>(kControl + vcpu); }
  u32 open(unsigned vcpu) {
    const u32 port = g.ipi(vcpu);
    EXPECT_EQ(unmask(port), 0);
    return port;
  }

  u32 heads[testing::FakeGuest::kVcpus][EVTCHN_FIFO_MAX_QUEUES] = {};
  // The guest's upcall handler: takes every ready queue, the highest priority first, and returns what was pending.
  std::vector<u32> consume(unsigned vcpu) {
    std::vector<u32> seen;
    g.domain->set_upcall_pending(vcpu, false);
    for (u32 ready = std::atomic_ref{control(vcpu).ready}.exchange(0); ready != 0;
         ready |= std::atomic_ref{control(vcpu).ready}.exchange(0)) {
      const auto queue = static_cast<unsigned>(__builtin_ctz(ready));
      ready &= ready - 1;
      u32& head = heads[vcpu][queue];
      if (head == 0) head = std::atomic_ref{control(vcpu).head[queue]}.load();
      while (head != 0) {
        const u32 port = head, old = std::atomic_ref{word(port)}.fetch_and(~(kLinked | EVTCHN_FIFO_LINK_MASK));
        head = old & EVTCHN_FIFO_LINK_MASK;
        if ((old & kPending) && !(old & kMasked)) {
          std::atomic_ref{word(port)}.fetch_and(~kPending);
          seen.push_back(port);
        }
        if (seen.size() > 5000) return seen;
      }
    }
    return seen;
  }
};

TEST_F(FifoTest, EventsComeInOrder) {
  std::vector<u32> ports;
  for (int i = 0; i < 40; ++i) ports.push_back(open(0));
  g.notified.clear();
  for (const u32 port : ports) EXPECT_EQ(g.send(port), 0);
  EXPECT_EQ(g.notified, std::vector<unsigned>{0});  // one upcall
  EXPECT_EQ(consume(0), ports);
  EXPECT_TRUE(consume(0).empty());
  g.send(ports[7]);
  EXPECT_EQ(consume(0), std::vector<u32>{ports[7]});
}

TEST_F(FifoTest, SendingAgainBeforeItIsTakenIsOneEvent) {
  const u32 a = open(0), b = open(0);
  for (int i = 0; i < 5; ++i) {
    g.send(a);
    g.send(b);
  }
  EXPECT_EQ(consume(0), (std::vector<u32>{a, b}));
}

TEST_F(FifoTest, HigherPriorityComesFirst) {
  const u32 low = open(0), high = open(0);
  EXPECT_EQ(priority(high, EVTCHN_FIFO_PRIORITY_MAX), 0);
  g.send(low);
  g.send(high);
  EXPECT_EQ(consume(0), (std::vector<u32>{high, low}));
  EXPECT_EQ(priority(low, 16), -kXEINVAL);
  EXPECT_EQ(priority(900, 1), -kXEINVAL);
}

TEST_F(FifoTest, MaskedEventIsQueuedByUnmask) {
  const u32 port = g.ipi(1);
  g.send(port);
  EXPECT_EQ(word(port) & (kPending | kLinked), kPending);
  EXPECT_TRUE(consume(1).empty());
  g.notified.clear();
  EXPECT_EQ(unmask(port), 0);
  EXPECT_TRUE(g.take_notice(1));
  EXPECT_EQ(consume(1), std::vector<u32>{port});
}

// The tail of one queue moves to another one: the old queue must not be taken for one with an end to link behind.
TEST_F(FifoTest, TailMovesBetweenQueues) {
  const u32 a = open(0), b = open(0);
  for (u32 i = 0; i < 16; ++i) {
    g.send(a);
    EXPECT_EQ(consume(0), std::vector<u32>{a});
    priority(a, i);
    g.send(a);
    g.send(b);
    auto seen = consume(0);
    std::ranges::sort(seen);
    EXPECT_EQ(seen, (std::vector<u32>{a, b}));
  }
}

TEST_F(FifoTest, PendingInTheOldAbiIsNotLost) {
  testing::FakeGuest fresh;
  const u32 port = fresh.ipi(0);
  fresh.send(port);
  evtchn_init_control_t arg{fresh.frame(kControl), 0, 0, 0, {}};
  ASSERT_EQ(fresh.event_op(EVTCHNOP_init_control, arg), 0);
  ASSERT_EQ(fresh.event_op(EVTCHNOP_expand_array, evtchn_expand_array_t{fresh.frame(kArray)}), 0);
  EXPECT_EQ((&fresh.at<event_word_t>(kArray))[port] & (kPending | kLinked), kPending | kLinked);
}

TEST_F(FifoTest, ResetGoesBackToTwoLevels) {
  EXPECT_EQ(g.event_op(EVTCHNOP_reset, evtchn_reset_t{DOMID_SELF}), 0);
  EXPECT_EQ(expand(g.frame(20)), -kXEOPNOTSUPP);
  const u32 port = g.ipi(0);
  g.send(port);
  EXPECT_EQ(g.shared().evtchn_pending[0], u64{1} << port);
  EXPECT_EQ(init(0, g.frame(kControl), 8), 0);
}

TEST_F(FifoTest, ClosedPortIsNoEventAnyMore) {
  const u32 a = open(0), b = open(0);
  g.send(a);
  g.send(b);
  g.close(a);
  EXPECT_EQ(consume(0), std::vector<u32>{b});
}

// ---- bad guests

TEST_F(FifoTest, BadControlBlocks) {
  testing::FakeGuest fresh;
  const auto attempt = [&](u64 frame, u32 offset, u32 vcpu) {
    evtchn_init_control_t arg{frame, offset, vcpu, 0, {}};
    return fresh.event_op(EVTCHNOP_init_control, arg);
  };
  EXPECT_EQ(attempt(fresh.frame(1), 0, 2), -kXENOENT);
  EXPECT_EQ(attempt(fresh.frame(1), 4, 0), -kXEINVAL);
  EXPECT_EQ(attempt(fresh.frame(1), kPageSize - 64, 0), -kXEINVAL);
  EXPECT_EQ(attempt(fresh.frame(1), ~u32{7}, 0), -kXEINVAL);
  EXPECT_EQ(attempt(5, 0, 0), -kXEINVAL);
  EXPECT_EQ(attempt(~u64{0}, 0, 0), -kXEINVAL);
  EXPECT_EQ(attempt(fresh.frame(1), 0, 0), 0);
  EXPECT_EQ(attempt(fresh.frame(2), 0, 0), -kXEINVAL);  // once
}

TEST_F(FifoTest, ArrayIsBounded) {
  EXPECT_EQ(expand(~u64{0}), -kXEINVAL);
  for (int i = 1; i < 128; ++i) ASSERT_EQ(expand(g.frame(kArray)), 0) << i;
  EXPECT_EQ(expand(g.frame(kArray)), -kXENOSPC);
}

// The guest may lie about every bit and link: nothing is followed but our own tails.
TEST_F(FifoTest, CorruptWordsAreHarmless) {
  std::vector<u32> ports;
  for (int i = 0; i < 8; ++i) ports.push_back(open(0));
  for (const u32 junk :
       {~u32{0}, kLinked, kLinked | EVTCHN_FIFO_LINK_MASK, kPending | kLinked | 7u, u32{0}, 0xdeadbeefu})
    for (int round = 0; round < 50; ++round) {
      for (const u32 port : ports) {
        word(port) = junk;
        EXPECT_EQ(g.send(port), 0);
        EXPECT_EQ(unmask(port), 0);
      }
      control(0).ready = junk;
      for (u32& head : control(0).head) head = junk;
    }
}

// A guest that toggles words under us costs a bounded number of tries, and at worst its own events.
TEST_F(FifoTest, WordThatNeverStandsStill) {
  const u32 a = open(0), b = open(0);
  std::atomic<bool> stop{false};
  std::thread villain{[&] {
    while (!stop) {
      std::atomic_ref{word(a)}.fetch_xor(1u << 27);
      std::atomic_ref{word(a)}.fetch_or(kLinked);
      std::atomic_ref{word(b)}.fetch_and(~kLinked);
    }
  }};
  for (int i = 0; i < 20000; ++i) {
    g.send(a);
    g.send(b);
  }
  stop = true;
  villain.join();
}

TEST_F(FifoTest, EventsBeforeTheirPageAreOwedOnce) {
  testing::FakeGuest fresh;
  evtchn_init_control_t arg{fresh.frame(kControl), 0, 0, 0, {}};
  ASSERT_EQ(fresh.event_op(EVTCHNOP_init_control, arg), 0);
  const u32 port = fresh.ipi(0);
  for (int i = 0; i < 100; ++i) fresh.send(port);
  EXPECT_EQ(fresh.counter("fifo_missing_pages"), 100u);
  fresh.notified.clear();
  ASSERT_EQ(fresh.event_op(EVTCHNOP_expand_array, evtchn_expand_array_t{fresh.frame(kArray)}), 0);
  EXPECT_EQ(fresh.notified, std::vector<unsigned>{0});
}

// Two vCPUs and the host send at once while the guest consumes: nothing is lost.
TEST_F(FifoTest, NothingIsLostUnderConcurrency) {
  constexpr int kEvents = 20000;
  const u32 port = g.unbound();
  EXPECT_EQ(unmask(port), 0);
  auto binding = g.domain->events().bind(port, [] {});
  std::atomic<int> sent{0};
  std::atomic<bool> done{false};
  std::thread host{[&] {
    for (int i = 0; i < kEvents; ++i) {
      ++sent;
      binding->notify();
    }
    done = true;
  }};
  int seen_at = 0;
  while (true) {
    const bool last = done;
    for (const u32 p : consume(0)) {
      EXPECT_EQ(p, port);
      seen_at = sent;
    }
    if (last) break;
  }
  host.join();
  EXPECT_EQ(seen_at, kEvents);  // after the last event there was an upcall
}

}  // namespace
}  // namespace bulkhead::abi::xen
