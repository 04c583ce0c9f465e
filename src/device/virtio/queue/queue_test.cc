#include "device/virtio/queue/queue.h"

#include <gtest/gtest.h>

#include <random>

#include "spec/virtio.h"
#include "support/virtqueue_driver.h"

namespace bulkhead::device::virtio {
namespace {

using namespace spec::virtio;
using test::RingOptions;
using test::VirtqueueDriver;

struct CountingFaults final : FaultSink {
  void queue_fault(Fault fault) override {
    ++count;
    last = fault;
  }
  unsigned count = 0;
  Fault last = Fault::kNone;
};

class QueueTest : public ::testing::TestWithParam<RingOptions> {
 protected:
  static constexpr u16 kSize = 8;
  void SetUp() override { ASSERT_TRUE(queue_.enable(driver_.config())); }
  // Everything the device has to say about what is in the ring now.
  Fault fault() {
    while (auto chain = queue_.pop()) queue_.drop(std::move(*chain));
    return faults_.last;
  }
  GuestMemory memory_ = *GuestMemory::create({{Gpa{0}, 1_MiB}, {Gpa{1_MiB}, 64_KiB}, {Gpa{16_MiB}, 64_KiB}});
  CountingFaults faults_;
  VirtqueueDriver driver_{memory_, Gpa{0x10000}, kSize, GetParam()};
  Queue queue_{memory_, faults_, 256};
};

std::string ring_name(const ::testing::TestParamInfo<RingOptions>& info) {
  return std::string(info.param.packed ? "Packed" : "Split") + (info.param.indirect ? "Indirect" : "") +
         (info.param.event_index ? "Event" : "");
}
INSTANTIATE_TEST_SUITE_P(Rings, QueueTest,
                         ::testing::Values(RingOptions{false, false, false}, RingOptions{false, false, true},
                                           RingOptions{false, true, false}, RingOptions{false, true, true},
                                           RingOptions{true, false, false}, RingOptions{true, false, true},
                                           RingOptions{true, true, false}, RingOptions{true, true, true}),
                         ring_name);

TEST_P(QueueTest, ChainsComeInOrderAndGoHome) {
  for (u32 lap = 1; lap < 100; ++lap) {
    const auto token = driver_.add({{Gpa{0x40000}, lap, false}, {Gpa{0x50000}, 10, false}, {Gpa{0x60000}, 20, true}});
    ASSERT_TRUE(token);
    auto chain = queue_.pop();
    ASSERT_TRUE(chain);
    EXPECT_EQ(chain->readable_bytes(), lap + 10u);
    EXPECT_EQ(chain->readable()[0].data, memory_.host(Gpa{0x40000}, 1));
    EXPECT_EQ(chain->writable()[0].length, 20u);
    EXPECT_FALSE(queue_.pop());
    queue_.push(std::move(*chain), 7);
    const auto used = driver_.poll();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->token, *token);
    EXPECT_EQ(used->length, 7u);
  }
  EXPECT_EQ(faults_.count, 0u);
}

TEST_P(QueueTest, CompletionOutOfOrder) {
  std::mt19937 random{1};
  std::vector<Chain> held;
  unsigned added = 0, completed = 0;
  while (completed < 500) {
    while (random() % 2 != 0 && driver_.add({{Gpa{0x40000}, 1 + added % 100, false}})) ++added;
    while (auto chain = queue_.pop()) held.push_back(std::move(*chain));
    while (!held.empty() && random() % 3 != 0) {
      std::swap(held[random() % held.size()], held.back());
      queue_.push(std::move(held.back()), 0);
      held.pop_back();
    }
    while (driver_.poll()) ++completed;
  }
  for (Chain& chain : held) queue_.drop(std::move(chain));
  EXPECT_EQ(faults_.count, 0u);
}

TEST_P(QueueTest, InterruptsOnlyAsWished) {
  const auto complete = [&](unsigned count) {
    for (unsigned i = 0; i < count; ++i) {
      driver_.add({{Gpa{0x40000}, 1, false}});
      auto chain = queue_.pop();
      queue_.push(std::move(*chain), 0);
      driver_.poll();
    }
    return queue_.interrupt_wanted();
  };
  for (unsigned lap = 0; lap < 50; ++lap) {
    driver_.suppress_interrupts();
    EXPECT_FALSE(complete(3));
    driver_.request_interrupt();
    EXPECT_TRUE(complete(1));
    EXPECT_FALSE(queue_.interrupt_wanted()) << "nothing new";
    if (!GetParam().event_index) continue;
    driver_.request_interrupt(2);
    EXPECT_FALSE(complete(1));
    EXPECT_FALSE(complete(1));
    EXPECT_TRUE(complete(1));
    driver_.request_interrupt(1);
    EXPECT_TRUE(complete(4)) << "passed over in one batch";
  }
}

TEST_P(QueueTest, NotificationsOnlyAsWished) {
  for (unsigned lap = 0; lap < 50; ++lap) {
    EXPECT_FALSE(queue_.enable_notifications());
    driver_.add({{Gpa{0x40000}, 1, false}});
    EXPECT_TRUE(driver_.kick_wanted());
    queue_.disable_notifications();
    driver_.add({{Gpa{0x40000}, 1, false}});
    driver_.add({{Gpa{0x40000}, 1, false}});
    EXPECT_FALSE(driver_.kick_wanted());
    EXPECT_TRUE(queue_.enable_notifications()) << "they came while we did not want to hear";
    while (auto chain = queue_.pop()) queue_.push(std::move(*chain), 0);
    while (driver_.poll()) continue;
  }
}

TEST_P(QueueTest, BufferAcrossRamRangesIsSplit) {
  driver_.add({{Gpa{1_MiB - 100}, 300, true}});
  auto chain = queue_.pop();
  ASSERT_TRUE(chain);
  ASSERT_EQ(chain->writable().size(), 2u);
  EXPECT_EQ(chain->writable()[1].length, 200u);
  EXPECT_EQ(chain->writable_bytes(), 300u);
  queue_.push(std::move(*chain), 300);
}

TEST_P(QueueTest, TakeSkipAndStatusByte) {
  ASSERT_TRUE(memory_.write(Gpa{0x40000}, std::as_bytes(std::span{"0123456789", 10})));
  driver_.add({{Gpa{0x40000}, 3, false}, {Gpa{0x40003}, 7, false}, {Gpa{0x50000}, 2, true}, {Gpa{0x60000}, 1, true}});
  auto chain = queue_.pop();
  ASSERT_TRUE(chain);
  char text[6] = {};
  EXPECT_TRUE(chain->take(std::as_writable_bytes(std::span{text, 5})));
  EXPECT_STREQ(text, "01234");
  EXPECT_FALSE(chain->take(std::as_writable_bytes(std::span{text, 6})));
  chain->skip(5);
  EXPECT_TRUE(chain->readable().empty());
  EXPECT_EQ(chain->take_last_writable(), memory_.host(Gpa{0x60000}, 1));
  EXPECT_EQ(chain->take_last_writable(), memory_.host(Gpa{0x50001}, 1));
  EXPECT_EQ(chain->writable_bytes(), 1u);
  EXPECT_EQ(chain->take_last_writable(), memory_.host(Gpa{0x50000}, 1));
  EXPECT_EQ(chain->take_last_writable(), nullptr);
  queue_.push(std::move(*chain), 3);
}

// From here on: bad guests.

TEST_P(QueueTest, WildAddresses) {
  for (const u64 at : {u64{0x200000}, 16_MiB + 64_KiB - 1, ~u64{0} - 1, ~u64{0}, u64{1} << 63, 1_MiB + 64_KiB - 4}) {
    faults_.last = Fault::kNone;
    VirtqueueDriver driver{memory_, Gpa{0x10000}, kSize, GetParam()};
    ASSERT_TRUE(queue_.enable(driver.config()));
    driver.add({{Gpa{at}, 16, true}});
    EXPECT_EQ(fault(), Fault::kNotRam) << at;
    EXPECT_TRUE(queue_.broken());
    EXPECT_FALSE(queue_.enable_notifications());
  }
}

TEST_P(QueueTest, AbsurdLengths) {
  driver_.add({{Gpa{0x40000}, 0xffffffff, true}});
  EXPECT_EQ(fault(), Fault::kTooManyBytes);
}

TEST_P(QueueTest, TooManyBytesInAll) {
  const GuestMemory memory = *GuestMemory::create_pc(2_MiB);
  Queue queue{memory, faults_, 256, {.buffers = 4, .bytes = 1_MiB}};
  VirtqueueDriver driver{memory, Gpa{0x10000}, kSize, GetParam()};
  ASSERT_TRUE(queue.enable(driver.config()));
  driver.add({{Gpa{0}, 512u << 10, false}, {Gpa{0}, 512u << 10, true}});
  auto chain = queue.pop();
  ASSERT_TRUE(chain);
  queue.push(std::move(*chain), 0);
  driver.add({{Gpa{0}, 512u << 10, false}, {Gpa{0}, (512u << 10) + 1, true}});
  EXPECT_FALSE(queue.pop());
  EXPECT_EQ(faults_.last, Fault::kTooManyBytes);
  ASSERT_TRUE(queue.enable(VirtqueueDriver{memory, Gpa{0x10000}, kSize, GetParam()}.config()));
  VirtqueueDriver again{memory, Gpa{0x10000}, kSize, GetParam()};
  again.add({{Gpa{0}, 1}, {Gpa{0}, 1}, {Gpa{0}, 1}, {Gpa{0}, 1}, {Gpa{0}, 1}});
  EXPECT_FALSE(queue.pop());
  EXPECT_EQ(faults_.last, Fault::kTooLong);
}

TEST_P(QueueTest, EmptyBuffer) {
  driver_.add({{Gpa{0x40000}, 0, true}});
  EXPECT_EQ(fault(), Fault::kZeroLength);
}

TEST_P(QueueTest, ReadableBehindWritable) {
  driver_.add({{Gpa{0x40000}, 8, true}, {Gpa{0x40000}, 8, false}});
  EXPECT_EQ(fault(), Fault::kReadAfterWrite);
}

TEST_P(QueueTest, RingsThatCannotBe) {
  const QueueConfig good = driver_.config();
  const auto refused = [&](auto change) {
    QueueConfig config = good;
    change(config);
    return !queue_.enable(config) && faults_.last == Fault::kBadSetup && !queue_.enabled() && !queue_.pop();
  };
  EXPECT_TRUE(refused([](QueueConfig& c) { c.size = 0; }));
  EXPECT_TRUE(refused([](QueueConfig& c) { c.size = 512; }));
  EXPECT_TRUE(refused([](QueueConfig& c) { c.size = 0x80000000; }));
  EXPECT_TRUE(refused([](QueueConfig& c) { c.descriptors = c.descriptors + 8; }));
  EXPECT_TRUE(refused([](QueueConfig& c) { c.driver = c.driver + 1; }));
  EXPECT_TRUE(refused([](QueueConfig& c) { c.device = c.device + 2; }));
  EXPECT_TRUE(refused([](QueueConfig& c) { c.descriptors = Gpa{16_MiB + 64_KiB - 16 * kSize + 16}; }));
  EXPECT_TRUE(refused([](QueueConfig& c) { c.driver = Gpa{16_MiB + 64_KiB}; }));
  EXPECT_TRUE(refused([](QueueConfig& c) { c.device = Gpa{~u64{0} - 3}; }));
  EXPECT_TRUE(refused([](QueueConfig& c) { c.descriptors = Gpa{~u64{0} - 15}; }));
  // Right at the end of RAM is fine.
  QueueConfig last = good;
  last.descriptors = Gpa{16_MiB + 64_KiB - 16 * kSize};
  EXPECT_TRUE(queue_.enable(last));
}

class SplitTest : public QueueTest {};
INSTANTIATE_TEST_SUITE_P(Rings, SplitTest,
                         ::testing::Values(RingOptions{false, true, false}, RingOptions{false, true, true}), ring_name);

TEST_P(SplitTest, Loop) {
  driver_.put_descriptor(driver_.descriptor(0), 0x40000, 8, kDescNext, 1);
  driver_.put_descriptor(driver_.descriptor(1), 0x40000, 8, kDescNext, 0);
  driver_.publish_raw(0);
  EXPECT_EQ(fault(), Fault::kLoop);
}

TEST_P(SplitTest, LoopInTable) {
  driver_.put_descriptor(driver_.descriptor(0), driver_.table(0).value, 32, kDescIndirect, 0);
  driver_.put_descriptor(driver_.table(0), 0x40000, 8, kDescNext, 1);
  driver_.put_descriptor(driver_.table(0) + 16, 0x40000, 8, kDescNext, 1);
  driver_.publish_raw(0);
  EXPECT_EQ(fault(), Fault::kLoop);
}

TEST_P(SplitTest, IndexesOutsideTheTable) {
  driver_.publish_raw(kSize);
  EXPECT_EQ(fault(), Fault::kBadIndex);
  VirtqueueDriver driver{memory_, Gpa{0x10000}, kSize, GetParam()};
  ASSERT_TRUE(queue_.enable(driver.config()));
  driver.put_descriptor(driver.descriptor(0), 0x40000, 8, kDescNext, 0xffff);
  driver.publish_raw(0);
  faults_.last = Fault::kNone;
  EXPECT_EQ(fault(), Fault::kBadIndex);
}

TEST_P(SplitTest, IndexRunsAhead) {
  ASSERT_TRUE(memory_.store(driver_.available(2), u16{kSize + 1}));
  EXPECT_EQ(fault(), Fault::kIndexAhead);
}

TEST_P(SplitTest, SameBufferAgainAndAgain) {
  driver_.put_descriptor(driver_.descriptor(0), 0x40000, 8, 0, 0);
  std::vector<Chain> held;
  for (int i = 0; i < kSize + 1; ++i) {
    driver_.publish_raw(0);
    while (auto chain = queue_.pop()) held.push_back(std::move(*chain));
  }
  EXPECT_EQ(held.size(), kSize);
  EXPECT_EQ(faults_.last, Fault::kIndexAhead);
  for (Chain& chain : held) queue_.drop(std::move(chain));
}

TEST_P(SplitTest, DirectThenIndirectIsAllowed) {
  driver_.put_descriptor(driver_.descriptor(0), 0x40000, 8, kDescNext, 3);
  driver_.put_descriptor(driver_.descriptor(3), driver_.table(0).value, 16, kDescIndirect, 0);
  driver_.put_descriptor(driver_.table(0), 0x50000, 9, kDescWrite, 0);
  driver_.publish_raw(0);
  auto chain = queue_.pop();
  ASSERT_TRUE(chain);
  EXPECT_EQ(chain->readable_bytes(), 8u);
  EXPECT_EQ(chain->writable_bytes(), 9u);
  queue_.push(std::move(*chain), 0);
}

class IndirectTest : public QueueTest {
 protected:
  // A ring whose first buffer is this descriptor.
  Fault first(u64 address, u32 length, u16 extra_flags, bool negotiated = true) {
    RingOptions options = GetParam();
    options.indirect = negotiated;
    VirtqueueDriver driver{memory_, Gpa{0x10000}, kSize, options};
    EXPECT_TRUE(queue_.enable(driver.config()));
    faults_.last = Fault::kNone;
    fill_table(driver);
    const u16 flags = kDescIndirect | extra_flags;
    if (options.packed) {
      driver.put_descriptor(driver.descriptor(0), address, length, 0, flags | kDescAvail);
    } else {
      driver.put_descriptor(driver.descriptor(0), address, length, flags, 1);
      driver.publish_raw(0);
    }
    return fault();
  }
  void fill_table(VirtqueueDriver& driver) {
    for (u16 i = 0; i < 4; ++i) {
      const bool bad = i == nested_;
      const u16 flags = bad ? kDescIndirect : 0;
      const u16 next = i < 3 && !bad ? kDescNext : 0;
      if (GetParam().packed)
        driver.put_descriptor(driver.table(0) + 16 * i, 0x40000, 8, 0, flags);
      else
        driver.put_descriptor(driver.table(0) + 16 * i, 0x40000, 8, flags | next, static_cast<u16>(i + 1));
    }
    table_ = driver.table(0).value;
  }
  u16 nested_ = 100;
  u64 table_ = VirtqueueDriver{memory_, Gpa{0x10000}, kSize, GetParam()}.table(0).value;
};
INSTANTIATE_TEST_SUITE_P(Rings, IndirectTest,
                         ::testing::Values(RingOptions{false, true, false}, RingOptions{true, true, true}), ring_name);

TEST_P(IndirectTest, Tables) {
  EXPECT_EQ(first(table_, 64, 0), Fault::kNone);
  EXPECT_EQ(first(table_, 64, kDescWrite), Fault::kNone) << "WRITE is ignored on the one that names a table";
  EXPECT_EQ(first(table_, 0, 0), Fault::kBadTable);
  EXPECT_EQ(first(table_, 63, 0), Fault::kBadTable);
  EXPECT_EQ(first(table_, 0xfffffff0, 0), Fault::kTooLong);
  EXPECT_EQ(first(0x200000, 64, 0), Fault::kBadTable);
  EXPECT_EQ(first(~u64{0} - 31, 64, 0), Fault::kBadTable);
  EXPECT_EQ(first(table_, 64, kDescNext), Fault::kIndirectRefused);
  EXPECT_EQ(first(table_, 64, 0, false), Fault::kIndirectRefused) << "not negotiated";
  nested_ = 2;
  EXPECT_EQ(first(table_, 64, 0), Fault::kIndirectRefused) << "a table in a table";
}

class PackedTest : public QueueTest {};
INSTANTIATE_TEST_SUITE_P(Rings, PackedTest,
                         ::testing::Values(RingOptions{true, false, false}, RingOptions{true, false, true}), ring_name);

TEST_P(PackedTest, ChainAroundTheWholeRing) {
  for (u16 i = 0; i < kSize; ++i) driver_.put_descriptor(driver_.descriptor(i), 0x40000, 8, 0, kDescAvail | kDescNext);
  EXPECT_EQ(fault(), Fault::kLoop);
}

TEST_P(PackedTest, ChainIntoWhatIsNotAvailable) {
  driver_.put_descriptor(driver_.descriptor(0), 0x40000, 8, 0, kDescAvail | kDescNext);
  EXPECT_EQ(fault(), Fault::kNotAvailable);
}

TEST_P(PackedTest, AnySizeAndAnyId) {
  const QueueConfig config = [&] {
    QueueConfig c = driver_.config();
    c.size = 7;
    return c;
  }();
  ASSERT_TRUE(queue_.enable(config));
  driver_.put_descriptor(driver_.descriptor(0), 0x40000, 8, 0xffff, kDescAvail);
  auto chain = queue_.pop();
  ASSERT_TRUE(chain);
  queue_.push(std::move(*chain), 0);
  EXPECT_EQ(memory_.load<u16>(driver_.descriptor(0) + 12), 0xffff);
}

TEST(QueueRandom, NonsenseNeverGetsOut) {
  const GuestMemory memory = *GuestMemory::create_pc(1_MiB);
  CountingFaults faults;
  Queue queue{memory, faults, 256};
  std::mt19937_64 random{7};
  u64 chains = 0;
  for (unsigned round = 0; round < 20000; ++round) {
    const RingOptions options{random() % 2 != 0, random() % 4 != 0, random() % 2 != 0};
    VirtqueueDriver driver{memory, Gpa{0x10000}, 8, options};
    ASSERT_TRUE(queue.enable(driver.config()));
    for (u16 i = 0; i < 8; ++i) {
      const u16 flags = static_cast<u16>(random() % 8 | (random() % 2 ? kDescAvail : 0));
      const u64 at = random() % 4 ? driver.table(i).value : random() % 2_MiB;
      const u32 length = random() % 4 ? 64 : static_cast<u32>(random());
      for (const Gpa place : {driver.descriptor(i), driver.table(i), driver.table(i) + 16})
        driver.put_descriptor(place, at, length, options.packed ? 0 : flags, options.packed ? flags : random() % 9);
    }
    for (u16 i = 0; i < 4 && !options.packed; ++i) driver.publish_raw(static_cast<u16>(random() % 9));
    while (auto chain = queue.pop()) {
      ++chains;
      for (const IoBuffer& buffer : chain->writable()) std::fill_n(buffer.data, buffer.length, std::byte{0xff});
      queue.push(std::move(*chain), static_cast<u32>(random()));
    }
    queue.interrupt_wanted();
  }
  EXPECT_GT(chains, 100u);
  EXPECT_GT(faults.count, 100u);
}

}  // namespace
}  // namespace bulkhead::device::virtio
