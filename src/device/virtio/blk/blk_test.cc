#include "device/virtio/blk/blk.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <thread>

#include "block/testing/memory_node.h"
#include "device/virtio/mmio/mmio.h"
#include "spec/virtio.h"
#include "support/hostile_guest.h"

namespace bulkhead::device::virtio {
namespace {

using namespace spec::virtio;
using namespace spec::virtio::blk;
using block::IoStatus;
using test::DriverBuffer;
using test::RingOptions;

// Everything from guest to disk.
struct Rig {
  explicit Rig(unsigned queues = 1, bool read_only = false, block::CacheMode cache = block::CacheMode::kWriteBack)
      : disk{256 * 512,
             read_only ? block::DiskAccess::kReadOnly : block::DiskAccess::kReadWrite,
             {.serial = "disk-serial", .cache = cache}},
        queue_count{queues} {
    for (std::size_t i = 0; i < disk->bytes.size(); ++i) disk->bytes[i] = static_cast<std::byte>(i / 512 + i);
  }
  std::string content(u64 at, u64 length) {
    return {reinterpret_cast<const char*>(&disk->bytes[at]), static_cast<std::size_t>(length)};
  }
  bool up(RingOptions rings, u64 features = ~u64{0}) {
    return guest.bring_up(features & ~kFeaturePacked & ~kFeatureIndirect & ~kFeatureEventIndex, rings, queue_count, 16);
  }
  Gpa header(u32 type, u64 sector) {
    const RequestHeader head{type, 0, sector};
    return guest.put({reinterpret_cast<const char*>(&head), sizeof head});
  }
  // Runs one request and returns its status byte, 0xee when it was not written.
  u8 request(u32 type, u64 sector, std::vector<DriverBuffer> data, unsigned queue = 0) {
    const Gpa status = guest.put("\xee");
    data.insert(data.begin(), {header(type, sector), 16, false});
    data.push_back({status, 1, true});
    EXPECT_TRUE(guest.queue(queue).add(data));
    guest.kick(queue);
    used_length = guest.wait_used(queue).length;
    return static_cast<u8>(guest.get(status, 1)[0]);
  }
  u8 ranges(u32 type, std::vector<RangeSegment> segments) {
    const Gpa at = guest.put({reinterpret_cast<const char*>(segments.data()), 16 * segments.size()});
    return request(type, 0, {{at, static_cast<u32>(16 * segments.size()), false}});
  }
  block::testing::MemoryDisk disk;
  unsigned queue_count;
  GuestMemory memory = *GuestMemory::create_pc(8_MiB);
  BlockCore core{*disk.disk};
  VirtioBlk blk{core, queue_count};
  test::RecordingIrq irq;
  VirtioMmio mmio{blk, memory, irq};
  std::optional<test::VirtioGuest> driver{std::in_place, mmio, memory};
  test::VirtioGuest& guest = *driver;
  u32 used_length = 0;
};

class BlkTest : public ::testing::TestWithParam<RingOptions> {};
INSTANTIATE_TEST_SUITE_P(Rings, BlkTest,
                         ::testing::Values(RingOptions{false, false, false}, RingOptions{false, true, true},
                                           RingOptions{true, false, false}, RingOptions{true, true, true}));

TEST_P(BlkTest, ReadsAndWritesScatterLists) {
  Rig rig;
  ASSERT_TRUE(rig.up(GetParam()));
  const Gpa out = rig.guest.put(std::string(1536, 'w'));
  for (u64 sector = 0; sector < 100; ++sector) {
    EXPECT_EQ(rig.request(kOut, sector, {{out, 100, false}, {out + 100, 412, false}}), kOk);
    EXPECT_EQ(rig.used_length, 1u);
    EXPECT_EQ(rig.content(sector * 512, 512), std::string(512, 'w'));
  }
  const Gpa in = rig.guest.put(std::string(1536, 'x'));
  EXPECT_EQ(rig.request(kIn, 99, {{in, 512, true}, {in + 512, 1, true}, {in + 513, 1023, true}}), kOk);
  EXPECT_EQ(rig.used_length, 1537u);
  EXPECT_EQ(rig.guest.get(in, 1536), rig.content(99 * 512, 1536));
}

TEST_P(BlkTest, FlushIdDiscardZeroes) {
  Rig rig;
  ASSERT_TRUE(rig.up(GetParam()));
  EXPECT_EQ(rig.request(kFlush, 0, {}), kOk);
  EXPECT_EQ(rig.disk->flushes, 1u);
  const Gpa id = rig.guest.put(std::string(20, 'x'));
  EXPECT_EQ(rig.request(kGetId, 0, {{id, 20, true}}), kOk);
  EXPECT_EQ(rig.guest.get(id, 20), std::string("disk-serial") + std::string(9, '\0'));
  EXPECT_EQ(rig.ranges(kDiscard, {{8, 8, 0}, {32, 1, 0}}), kOk);
  EXPECT_EQ(rig.disk->discarded, 9u * 512);
  EXPECT_EQ(rig.ranges(kWriteZeroes, {{3, 2, 1}}), kOk);
  EXPECT_EQ(rig.content(3 * 512, 1024), std::string(1024, '\0'));
}

TEST_P(BlkTest, ManyInFlightOnTwoQueues) {
  Rig rig{2};
  ASSERT_TRUE(rig.up(GetParam()));
  const Gpa in = rig.guest.allocate(512), status = rig.guest.allocate(1);
  const Gpa header = rig.header(kIn, 5);
  const std::vector<DriverBuffer> buffers{{header, 16, false}, {in, 512, true}, {status, 1, true}};
  unsigned done = 0;
  for (unsigned sent = 0; done < 4000;) {
    for (const unsigned index : {0u, 1u}) {
      while (sent < 4000 && rig.guest.queue(index).add(buffers)) ++sent;
      rig.guest.kick(index);
      while (rig.guest.queue(index).poll()) ++done;
    }
  }
  EXPECT_EQ(rig.core.counters()[BlockCore::kReads].value(), 4000u);
  EXPECT_FALSE(rig.guest.needs_reset());
}

TEST_P(BlkTest, InterruptComesWhenAskedFor) {
  Rig rig;
  ASSERT_TRUE(rig.up(GetParam()));
  for (unsigned i = 0; i < 50; ++i) {
    rig.guest.queue(0).request_interrupt();
    EXPECT_EQ(rig.request(kFlush, 0, {}), kOk);
    while (!rig.irq.level()) std::this_thread::yield();
    EXPECT_EQ(rig.guest.read(0x60), 1u);
    rig.guest.write(0x64, 1);
    EXPECT_FALSE(rig.irq.level());
  }
}

TEST(Blk, ConfigurationSpace) {
  Rig rig{3};
  const auto config = [&](u64 offset, AccessSize size) { return rig.mmio.read(0x100 + offset, size).value; };
  EXPECT_EQ(config(0, AccessSize::k8), 256u);
  EXPECT_EQ(config(0, AccessSize::k4), 256u);
  EXPECT_EQ(config(1, AccessSize::k1), 1u);
  EXPECT_EQ(config(12, AccessSize::k4), VirtioBlk::kMaxDataSegments);
  EXPECT_EQ(config(20, AccessSize::k4), 512u);
  EXPECT_EQ(config(24, AccessSize::k1), 3u);
  EXPECT_EQ(config(34, AccessSize::k2), 3u);
  EXPECT_EQ(config(0xf00, AccessSize::k8), 0u);
  EXPECT_EQ(rig.mmio.write(0x100, 7, AccessSize::k8).handled, true);
  EXPECT_EQ(config(0, AccessSize::k8), 256u) << "the capacity is not the guest's to change";
}

TEST(Blk, WithoutFlushFeatureEveryWriteIsFlushed) {
  Rig rig;
  ASSERT_TRUE(rig.up({}, ~kFeatureFlush));
  EXPECT_EQ(rig.request(kOut, 0, {{rig.guest.put(std::string(512, 'w')), 512, false}}), kOk);
  EXPECT_EQ(rig.disk->fuas, 1u);
}

TEST(Blk, TheDriverMayTurnTheWriteCacheOff) {
  Rig rig;
  ASSERT_TRUE(rig.up({}));
  const auto write_back = [&] { return rig.mmio.read(0x120, AccessSize::k1).value; };
  const Gpa data = rig.guest.put(std::string(512, 'w'));
  EXPECT_EQ(write_back(), 1u);
  EXPECT_EQ(rig.request(kOut, 0, {{data, 512, false}}), kOk);
  EXPECT_EQ(rig.disk->fuas, 0u);
  rig.mmio.write(0x120, 0, AccessSize::k1);
  EXPECT_EQ(write_back(), 0u);
  EXPECT_EQ(rig.request(kOut, 0, {{data, 512, false}}), kOk);
  EXPECT_EQ(rig.disk->fuas, 1u);
  ASSERT_TRUE(rig.up({}));
  EXPECT_EQ(write_back(), 1u) << "a reset brings it back";
}

TEST(Blk, AWriteThroughDiskIsOneWhateverTheDriverSays) {
  Rig rig{1, false, block::CacheMode::kWriteThrough};
  ASSERT_TRUE(rig.up({}));
  EXPECT_EQ(rig.mmio.read(0x120, AccessSize::k1).value, 0u);
  rig.mmio.write(0x120, 1, AccessSize::k1);
  EXPECT_EQ(rig.request(kOut, 0, {{rig.guest.put(std::string(512, 'w')), 512, false}}), kOk);
  EXPECT_EQ(rig.disk->fuas, 1u);
}

TEST(Blk, ReadOnlyDiskRefusesChanges) {
  Rig rig{1, true};
  EXPECT_TRUE(rig.guest.offered_features() & (1 << 5));
  ASSERT_TRUE(rig.up({}));
  EXPECT_EQ(rig.request(kOut, 0, {{rig.guest.put(std::string(512, 'w')), 512, false}}), kIoErr);
  EXPECT_EQ(rig.ranges(kWriteZeroes, {{0, 1, 0}}), kIoErr);
  EXPECT_EQ(rig.ranges(kDiscard, {{0, 1, 0}}), kUnsupp);
}

TEST(Blk, HostFailureIsAnIoError) {
  Rig rig;
  ASSERT_TRUE(rig.up({}));
  rig.disk->answer = IoStatus::kIoError;
  EXPECT_EQ(rig.request(kIn, 0, {{rig.guest.allocate(512), 512, true}}), kIoErr);
  EXPECT_EQ(rig.used_length, 0u) << "nothing is promised about the data";
  EXPECT_EQ(rig.request(kFlush, 0, {}), kIoErr);
  EXPECT_EQ(rig.used_length, 1u);
}

TEST(Blk, RequestsOfAllQueuesRunInParallel) {
  Rig rig{2};
  ASSERT_TRUE(rig.up({true, true, true}));
  rig.disk->held = true;
  for (const unsigned index : {0u, 1u}) {
    for (int i = 0; i < 5; ++i)
      rig.guest.queue(index).add(
          {{rig.header(kIn, 0), 16, false}, {rig.guest.allocate(512), 512, true}, {rig.guest.allocate(1), 1, true}});
    rig.guest.kick(index);
  }
  rig.disk->await_busy(10);
  EXPECT_EQ(rig.core.queue(0).depth(), 5u);
  EXPECT_EQ(rig.core.queue(1).depth(), 5u);
  rig.disk->held = false;
  for (const unsigned index : {0u, 1u})
    for (int i = 0; i < 5; ++i) rig.guest.wait_used(index);
  rig.blk.quiesced([] {});
  EXPECT_EQ(rig.core.queue(0).depth(), 0u);
  EXPECT_EQ(rig.core.queue(1).deepest(), 5u);
  EXPECT_EQ(rig.core.queue(1).latency().count(), 5u);
}

TEST(Blk, ResetWaitsForAllRequestsInFlight) {
  Rig rig;
  ASSERT_TRUE(rig.up({true, true, true}));
  rig.disk->held = true;
  for (int i = 0; i < 3; ++i)
    rig.guest.queue(0).add(
        {{rig.header(kIn, 0), 16, false}, {rig.guest.allocate(512), 512, true}, {rig.guest.allocate(1), 1, true}});
  rig.guest.kick(0);
  rig.disk->await_busy(3);
  std::thread release{[&] {
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
    rig.disk->held = false;
  }};
  rig.guest.write(0x70, 0);
  EXPECT_EQ(rig.disk->busy, 0u);
  EXPECT_EQ(rig.guest.status(), 0);
  release.join();
  ASSERT_TRUE(rig.up({true, true, true}));
  EXPECT_EQ(rig.request(kFlush, 0, {}), kOk);
}

TEST(Blk, QueueStoppedAndRestartedWhileLive) {
  Rig rig{2};
  ASSERT_TRUE(rig.up({}));
  EXPECT_EQ(rig.request(kFlush, 0, {}, 1), kOk);
  rig.guest.write(0x30, 1);
  rig.guest.write(0x44, 0);
  EXPECT_EQ(rig.guest.read(0x44), 0u);
  rig.guest.write(0x50, 1);  // notifying it is harmless
  EXPECT_EQ(rig.request(kFlush, 0, {}, 0), kOk);
  rig.guest.set_up_queue(1, 8, {});
  EXPECT_EQ(rig.request(kFlush, 0, {}, 1), kOk);
}

// Bad guests.

TEST(Blk, RequestsThatMakeNoSense) {
  Rig rig;
  ASSERT_TRUE(rig.up({}));
  const Gpa data = rig.guest.allocate(4096);
  EXPECT_EQ(rig.request(99, 0, {}), kUnsupp);
  EXPECT_EQ(rig.request(kIn, 256, {{data, 512, true}}), kIoErr);
  EXPECT_EQ(rig.request(kIn, 255, {{data, 1024, true}}), kIoErr);
  EXPECT_EQ(rig.request(kIn, ~u64{0}, {{data, 512, true}}), kIoErr);
  EXPECT_EQ(rig.request(kIn, u64{1} << 55, {{data, 512, true}}), kIoErr);
  EXPECT_EQ(rig.request(kIn, 0, {{data, 511, true}}), kIoErr);
  EXPECT_EQ(rig.request(kOut, 255, {{data, 1024, false}}), kIoErr);
  EXPECT_EQ(rig.request(kGetId, 0, {{data, 5, true}}), kIoErr);
  EXPECT_EQ(rig.ranges(kDiscard, {{0, 1, 1}}), kUnsupp);
  EXPECT_EQ(rig.ranges(kDiscard, {{255, 2, 0}}), kIoErr);
  EXPECT_EQ(rig.ranges(kWriteZeroes, {{0, 0xffffffff, 0}}), kIoErr);
  EXPECT_EQ(rig.ranges(kWriteZeroes, {{0, 1, 0xfe}}), kUnsupp);
  EXPECT_EQ(rig.request(kDiscard, 0, {}), kIoErr);
  EXPECT_EQ(rig.request(kDiscard, 0, {{data, 15, false}}), kIoErr);
  EXPECT_EQ(rig.request(kDiscard, 0, {{data, 16 * 17, false}}), kIoErr);
  EXPECT_FALSE(rig.guest.needs_reset());
}

TEST(Blk, NoHeaderOrNoStatusBreaksTheDevice) {
  for (const bool header : {false, true}) {
    Rig rig;
    ASSERT_TRUE(rig.up({}));
    if (header)
      rig.guest.queue(0).add({{rig.header(kFlush, 0), 16, false}});
    else
      rig.guest.queue(0).add({{rig.header(kFlush, 0), 15, false}, {rig.guest.allocate(1), 1, true}});
    rig.guest.kick(0);
    while (!rig.guest.needs_reset()) std::this_thread::yield();
    EXPECT_EQ(rig.mmio.session().faults(Fault::kBadRequest), 1u);
    while (!(rig.guest.read(0x60) & 2)) std::this_thread::yield();
    ASSERT_TRUE(rig.up({}));
    EXPECT_EQ(rig.request(kFlush, 0, {}), kOk);
  }
}

TEST(BlkHostile, SurvivesAndWorksAfterwards) {
  Rig rig{2};
  for (u64 seed = 0; seed < 3; ++seed) {
    test::HostileGuest hostile{rig.mmio, rig.memory, seed};
    hostile.touch_registers(20000, 2);
    hostile.corrupt_rings(300, 2, rig.blk.features());
    rig.driver.emplace(rig.mmio, rig.memory);
    ASSERT_TRUE(rig.up({seed % 2 == 0, true, true}));
    EXPECT_EQ(rig.request(kFlush, 0, {}), kOk);
  }
}

}  // namespace
}  // namespace bulkhead::device::virtio
