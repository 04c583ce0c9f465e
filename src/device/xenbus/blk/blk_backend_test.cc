#include "device/xenbus/blk/blk_backend.h"

#include <gtest/gtest.h>

#include <cstring>
#include <mutex>
#include <random>
#include <thread>

#include "block/testing/memory_node.h"
#include "device/xenbus/testing/blkfront.h"

namespace bulkhead::device::xenbus {
namespace {

using block::testing::MemoryDisk;
using testing::Abi32;
using testing::Abi64;
using testing::Blkfront;
using testing::BlkfrontOptions;
using testing::XenbusZone;
using Request = blkif_request;

struct BlkTest : ::testing::Test {
  void add(BlkBackend::Options options = {}) {
    auto made = std::make_unique<BlkBackend>(core, zone.grants, zone.events, options);
    backend = made.get();
    ASSERT_TRUE(zone.bus.add(BlkBackend::device_number(options.index), std::move(made)));
  }
  u64 count(BlkCounter which) { return backend->counters().value(which); }
  void fill(u32 reference, int value) { std::memset(zone.grants.page(reference), value, kPageSize); }
  bool page_is(u32 reference, int value) {
    const std::byte* const page = zone.grants.page(reference);
    return std::all_of(page, page + kPageSize, [&](std::byte b) { return b == static_cast<std::byte>(value); });
  }

  explicit BlkTest(u64 size = 4_MiB, block::DiskAccess access = block::DiskAccess::kReadWrite) : disk{size, access} {}
  MemoryDisk disk;
  BlockCore core{*disk.disk};
  XenbusZone zone;
  BlkBackend* backend = nullptr;  // as long as it is plugged
};

struct ReadOnlyBlkTest : BlkTest {
  ReadOnlyBlkTest() : BlkTest{4_MiB, block::DiskAccess::kReadOnly} {}
};
struct SmallBlkTest : BlkTest {
  SmallBlkTest() : BlkTest{5 * 512} {}
};

template <class Abi>
struct AbiTest : BlkTest {};
using Abis = ::testing::Types<Abi64, Abi32>;
TYPED_TEST_SUITE(AbiTest, Abis);

TYPED_TEST(AbiTest, WritesAndReadsBackOnRingsOfEverySize) {
  for (unsigned order = 0; order <= 4; ++order) {
    this->add();
    Blkfront<TypeParam> front{this->zone, {.order = order}};
    ASSERT_TRUE(front.connect());
    auto& ring = *front.rings[0];
    // Several times round, so that every entry and the wrap are used.
    const std::vector<u32> pages = this->zone.grants.grant_run(3);
    for (unsigned round = 0; round < 3 * RING_SIZE(&ring.ring); ++round) {
      const u64 sector = round % 300 * 24;
      this->fill(pages[0], static_cast<int>(round));
      this->fill(pages[2], static_cast<int>(round + 1));
      ASSERT_EQ(front.ask(BLKIF_OP_WRITE, sector, {pages[0], pages[2]}), BLKIF_RSP_OKAY);
      ASSERT_EQ(front.ask(BLKIF_OP_READ, sector + 8, {pages[1]}), BLKIF_RSP_OKAY);
      ASSERT_TRUE(this->page_is(pages[1], static_cast<int>(round + 1))) << round;
    }
    front.say(State::kClosed);
    ASSERT_EQ(this->zone.unplug("vbd", 51712, Unplug::kAsk), Unplugged::kGone);
    EXPECT_EQ(this->zone.grants.mapped(), 0u);
  }
}

TYPED_TEST(AbiTest, ManyRequestsAtOnceAreAllAnswered) {
  this->add();
  Blkfront<TypeParam> front{this->zone};
  ASSERT_TRUE(front.connect());
  auto& ring = *front.rings[0];
  const u32 page = this->zone.grants.grant();
  for (unsigned round = 0; round < 50; ++round) {
    unsigned asked = 0;
    for (; !ring.full(); ++asked) ring.put(front.request(BLKIF_OP_READ, asked, {page}));
    EXPECT_EQ(asked, 32u);
    ring.push();
    for (; asked > 0; --asked) {
      const auto response = ring.next();
      ASSERT_TRUE(response);
      ASSERT_EQ(response->status, BLKIF_RSP_OKAY);
    }
  }
}

TEST_F(ReadOnlyBlkTest, SaysWhatItIs) {
  add({.index = 1, .queues = 3});
  Blkfront<> front{zone, {}, 51728};
  EXPECT_EQ(front.read("dev"), "xvdb");
  EXPECT_EQ(front.read("mode"), "r");
  EXPECT_EQ(front.read("feature-flush-cache"), "1");
  EXPECT_EQ(front.read("feature-barrier"), "1");
  EXPECT_EQ(front.read("feature-persistent"), "1");
  EXPECT_EQ(front.read("feature-discard"), "0");
  EXPECT_EQ(front.read("feature-max-indirect-segments"), "256");
  EXPECT_EQ(front.read("max-ring-page-order"), "4");
  EXPECT_EQ(front.read("multi-queue-max-queues"), "3");
  ASSERT_TRUE(front.connect());
  EXPECT_EQ(front.read("sectors"), "8192");
  EXPECT_EQ(front.read("sector-size"), "512");
  EXPECT_EQ(front.read("physical-sector-size"), "4096");
  EXPECT_EQ(front.read("info"), "4");
  EXPECT_EQ(zone.store.read(front.path + "/virtual-device"), "51728");
}

TEST_F(SmallBlkTest, DiscardHasItsNodesAndSmallDisksTheirPhysicalSector) {
  add();
  Blkfront<> front{zone};
  EXPECT_EQ(front.read("feature-discard"), "1");
  EXPECT_EQ(front.read("discard-granularity"), "4096");
  EXPECT_EQ(front.read("discard-alignment"), "0");
  EXPECT_EQ(front.read("discard-secure"), "0");
  ASSERT_TRUE(front.connect());
  EXPECT_EQ(front.read("physical-sector-size"), "512");  // 4096 would not divide the size
}

TEST(BlkNames, AreXens) {
  EXPECT_EQ(BlkBackend::device_number(0), 51712u);
  EXPECT_EQ(BlkBackend::device_number(15), 51952u);
  EXPECT_EQ(BlkBackend::device_number(16), 268439552u);
  EXPECT_EQ(BlkBackend::device_name(0), "xvda");
  EXPECT_EQ(BlkBackend::device_name(25), "xvdz");
  EXPECT_EQ(BlkBackend::device_name(26), "xvdaa");
  EXPECT_EQ(BlkBackend::device_name(53), "xvdbb");
}

TEST_F(BlkTest, PartsOfPagesGoWhereTheySay) {
  add();
  Blkfront<> front{zone};
  ASSERT_TRUE(front.connect());
  const u32 page = zone.grants.grant(), other = zone.grants.grant(false);
  for (unsigned sector = 0; sector < 8; ++sector)
    std::memset(zone.grants.page(other) + sector * 512, 'a' + sector, 512);
  Request write = front.request(BLKIF_OP_WRITE, 100, {other, other});  // the same page twice, too
  write.seg[0] = {other, 2, 3};
  write.seg[1] = {other, 7, 7};
  EXPECT_EQ(front.rings[0]->ask(write), BLKIF_RSP_OKAY);
  Request read = front.request(BLKIF_OP_READ, 101, {page});
  read.seg[0] = {page, 5, 6};
  EXPECT_EQ(front.rings[0]->ask(read), BLKIF_RSP_OKAY);
  EXPECT_EQ(zone.grants.page(page)[5 * 512], static_cast<std::byte>('d'));
  EXPECT_EQ(zone.grants.page(page)[6 * 512 + 511], static_cast<std::byte>('h'));
  EXPECT_EQ(zone.grants.page(page)[7 * 512], std::byte{0});
  EXPECT_EQ(zone.grants.writes(page), 1u);
  EXPECT_EQ(zone.grants.writes(other), 0u);
}

TEST_F(BlkTest, NeighbouringPagesAreOneBuffer) {
  add();
  Blkfront<> front{zone};
  ASSERT_TRUE(front.connect());
  EXPECT_EQ(front.ask(BLKIF_OP_WRITE, 0, zone.grants.grant_run(11)), BLKIF_RSP_OKAY);
  EXPECT_EQ(disk->most_buffers, 1u);
}

TEST_F(BlkTest, BarriersAndFlushesKeepTheirOrder) {
  add();
  Blkfront<> front{zone};
  ASSERT_TRUE(front.connect());
  const u32 page = zone.grants.grant();
  EXPECT_EQ(front.ask(BLKIF_OP_WRITE_BARRIER, 0, {page}), BLKIF_RSP_OKAY);
  EXPECT_EQ(disk->journal(), "fwf");
  EXPECT_EQ(front.ask(BLKIF_OP_WRITE_BARRIER, 0, {}), BLKIF_RSP_OKAY);
  EXPECT_EQ(disk->journal(), "f");
  EXPECT_EQ(front.ask(BLKIF_OP_FLUSH_DISKCACHE, 0, {}), BLKIF_RSP_OKAY);
  EXPECT_EQ(disk->journal(), "f");
  EXPECT_EQ(front.ask(BLKIF_OP_FLUSH_DISKCACHE, 0, {page}), BLKIF_RSP_OKAY);
  EXPECT_EQ(disk->journal(), "fw");
}

blkif_request_discard discard_request(u64 sector, u64 count, u8 flag = 0) {
  blkif_request_discard entry{};
  entry.operation = BLKIF_OP_DISCARD;
  entry.flag = flag;
  entry.id = 77;
  entry.sector_number = sector;
  entry.nr_sectors = count;
  return entry;
}

TEST_F(BlkTest, DiscardsAndRefusesToDoSoSecurely) {
  add();
  Blkfront<> front{zone};
  ASSERT_TRUE(front.connect());
  std::memset(disk->bytes.data(), 1, disk->bytes.size());
  EXPECT_EQ(front.rings[0]->ask(discard_request(8, 16)), BLKIF_RSP_OKAY);
  EXPECT_EQ(disk->bytes[8 * 512 - 1], std::byte{1});
  EXPECT_EQ(disk->bytes[8 * 512], std::byte{0});
  EXPECT_EQ(disk->bytes[24 * 512], std::byte{1});
  EXPECT_EQ(front.rings[0]->ask(discard_request(0, 8, BLKIF_DISCARD_SECURE)), BLKIF_RSP_EOPNOTSUPP);
  EXPECT_EQ(front.rings[0]->ask(discard_request(8191, 2)), BLKIF_RSP_ERROR);
  EXPECT_EQ(front.rings[0]->ask(discard_request(~u64{0}, 2)), BLKIF_RSP_ERROR);
  EXPECT_EQ(front.rings[0]->ask(discard_request(1, ~u64{0})), BLKIF_RSP_ERROR);
  EXPECT_EQ(disk->bytes[0], std::byte{1});
}

// A request of `pages`, listed in the granted page `list`.
blkif_request_indirect indirect_request(XenbusZone& zone, u8 operation, u64 sector, u32 list,
                                        const std::vector<u32>& pages) {
  auto* const segments = reinterpret_cast<blkif_request_segment*>(zone.grants.page(list));
  for (std::size_t i = 0; i < pages.size(); ++i) segments[i] = {pages[i], 0, 7};
  blkif_request_indirect entry{};
  entry.operation = BLKIF_OP_INDIRECT;
  entry.indirect_op = operation;
  entry.nr_segments = static_cast<u16>(pages.size());
  entry.id = 99;
  entry.sector_number = sector;
  entry.indirect_grefs[0] = list;
  return entry;
}

TEST_F(BlkTest, IndirectRequestsOfAMebibyte) {
  add();
  Blkfront<> front{zone};
  ASSERT_TRUE(front.connect());
  const u32 list = zone.grants.grant(false);
  const std::vector<u32> pages = zone.grants.grant_run(256);
  for (u32 i = 0; i < 256; ++i) fill(pages[i], static_cast<int>(i));
  EXPECT_EQ(front.rings[0]->ask(indirect_request(zone, BLKIF_OP_WRITE, 80, list, pages)), BLKIF_RSP_OKAY);
  for (u32 i = 0; i < 256; ++i) ASSERT_EQ(disk->bytes[80 * 512 + i * kPageSize + 5], static_cast<std::byte>(i));
  EXPECT_EQ(front.rings[0]->ask(indirect_request(zone, BLKIF_OP_READ, 88, list, {pages[3]})), BLKIF_RSP_OKAY);
  EXPECT_TRUE(page_is(pages[3], 1));
  EXPECT_EQ(zone.grants.mapped(list), 0u);
}

// Linux gives a disk up whose responses name another operation than it asked for.
TEST_F(BlkTest, AnIndirectResponseNamesTheOperationThatWasCarried) {
  add();
  Blkfront<> front{zone};
  ASSERT_TRUE(front.connect());
  const u32 list = zone.grants.grant();
  for (const unsigned operation : {BLKIF_OP_READ, BLKIF_OP_WRITE, BLKIF_OP_DISCARD}) {
    front.rings[0]->put(indirect_request(zone, static_cast<u8>(operation), 0, list, {zone.grants.grant()}));
    front.rings[0]->push();
    EXPECT_EQ(front.rings[0]->next()->operation, operation);
  }
}

TEST_F(BlkTest, PersistentPagesStayMappedAndWritesAreNoted) {
  add();
  Blkfront<> front{zone, {.persistent = true}};
  ASSERT_TRUE(front.connect());
  const u32 page = zone.grants.grant();
  for (int i = 0; i < 4; ++i) EXPECT_EQ(front.ask(BLKIF_OP_READ, 0, {page, page}), BLKIF_RSP_OKAY);
  EXPECT_EQ(zone.grants.mapped(page), 1u);
  EXPECT_GE(zone.grants.writes(page), 4u);
  EXPECT_EQ(count(BlkCounter::kPersistentHits), 7u);
  const u64 before = zone.grants.writes(page);
  EXPECT_EQ(front.ask(BLKIF_OP_WRITE, 0, {page}), BLKIF_RSP_OKAY);
  EXPECT_EQ(zone.grants.writes(page), before);
  ASSERT_TRUE(front.close());
  EXPECT_EQ(zone.grants.mapped(), 0u);
}

TEST_F(BlkTest, PersistentPagesAreBoundedAndTheLeastUsedGoes) {
  add({.kept_pages = 4});
  Blkfront<> front{zone, {.persistent = true}};
  ASSERT_TRUE(front.connect());
  const u64 rings = zone.grants.mapped();
  const std::vector<u32> pages = zone.grants.grant_run(8);
  EXPECT_EQ(front.ask(BLKIF_OP_WRITE, 0, {pages[0], pages[1], pages[2], pages[3]}), BLKIF_RSP_OKAY);
  EXPECT_EQ(front.ask(BLKIF_OP_WRITE, 0, {pages[0]}), BLKIF_RSP_OKAY);
  EXPECT_EQ(front.ask(BLKIF_OP_WRITE, 0, {pages[4]}), BLKIF_RSP_OKAY);  // in place of the one longest unused
  EXPECT_EQ(zone.grants.mapped(pages[0]), 1u);
  EXPECT_EQ(zone.grants.mapped(pages[4]), 1u);
  EXPECT_EQ(zone.grants.mapped() - rings, 4u);
  EXPECT_EQ(front.ask(BLKIF_OP_WRITE, 0, pages), BLKIF_RSP_OKAY);  // more than can be kept
  EXPECT_EQ(zone.grants.mapped() - rings, 4u);
}

TEST_F(BlkTest, APersistentDriverMayStillGrantForReadingOnly) {
  add();
  Blkfront<> front{zone, {.persistent = true}};
  ASSERT_TRUE(front.connect());
  const u32 page = zone.grants.grant(false);
  EXPECT_EQ(front.ask(BLKIF_OP_WRITE, 0, {page}), BLKIF_RSP_OKAY);
  EXPECT_EQ(front.ask(BLKIF_OP_READ, 0, {page}), BLKIF_RSP_ERROR);
  EXPECT_EQ(zone.grants.mapped(page), 0u);
}

TEST_F(BlkTest, SeveralQueuesFromSeveralThreads) {
  add({.queues = 4});
  Blkfront<> front{zone, {.queues = 4, .order = 1}};
  ASSERT_TRUE(front.connect());
  std::vector<std::thread> cpus;
  for (unsigned q = 0; q < 4; ++q) {
    cpus.emplace_back([&, q] {
      const u32 page = zone.grants.grant(), back = zone.grants.grant();
      for (unsigned i = 0; i < 500; ++i) {
        std::memset(zone.grants.page(page), static_cast<int>(q * 31 + i), kPageSize);
        Request write{}, read{};
        write.operation = BLKIF_OP_WRITE;
        write.nr_segments = read.nr_segments = 1;
        write.sector_number = read.sector_number = q * 2000;
        write.id = 1;
        read.id = 2;
        write.seg[0] = {page, 0, 7};
        read.seg[0] = {back, 0, 7};
        ASSERT_EQ(front.rings[q]->ask(write), BLKIF_RSP_OKAY);
        ASSERT_EQ(front.rings[q]->ask(read), BLKIF_RSP_OKAY);
        ASSERT_EQ(std::memcmp(zone.grants.page(page), zone.grants.page(back), kPageSize), 0);
      }
    });
  }
  for (std::thread& cpu : cpus) cpu.join();
}

TEST_F(BlkTest, ASleepingDriverIsNotWokenForNothing) {
  add();
  Blkfront<> front{zone};
  ASSERT_TRUE(front.connect());
  auto& ring = *front.rings[0];
  const u32 page = zone.grants.grant();
  // Says that it wants to hear of the eighth response only.
  std::atomic_ref{ring.shared->rsp_event}.store(ring.ring.rsp_cons + 8);
  for (int i = 0; i < 8; ++i) ring.put(front.request(BLKIF_OP_READ, 0, {page}));
  ring.push();
  ASSERT_TRUE(zone.events.await(ring.port, 0));
  EXPECT_EQ(zone.events.notifications(ring.port), 1u);
  EXPECT_EQ(std::atomic_ref{ring.shared->rsp_prod}.load(), 8u);
}

// Disks that fail, and disks that go.

TEST_F(BlkTest, TheDisksAnswersReachTheGuest) {
  add();
  Blkfront<> front{zone};
  ASSERT_TRUE(front.connect());
  const u32 page = zone.grants.grant();
  disk->answer = block::IoStatus::kIoError;
  EXPECT_EQ(front.ask(BLKIF_OP_READ, 0, {page}), BLKIF_RSP_ERROR);
  disk->answer = block::IoStatus::kUnsupported;
  EXPECT_EQ(front.ask(BLKIF_OP_FLUSH_DISKCACHE, 0, {}), BLKIF_RSP_EOPNOTSUPP);
}

TEST_F(ReadOnlyBlkTest, NothingIsWrittenToAReadOnlyDisk) {
  add();
  Blkfront<> front{zone};
  ASSERT_TRUE(front.connect());
  EXPECT_EQ(front.ask(BLKIF_OP_WRITE, 0, {zone.grants.grant()}), BLKIF_RSP_ERROR);
  EXPECT_EQ(front.rings[0]->ask(discard_request(0, 8)), BLKIF_RSP_EOPNOTSUPP);
  EXPECT_EQ(disk->journal(), "");
}

TEST_F(BlkTest, ACloseInTheMiddleWaitsForTheRequestsAndUnmapsAll) {
  add();
  Blkfront<> front{zone};
  ASSERT_TRUE(front.connect());
  const u32 page = zone.grants.grant();
  disk->held = true;
  for (int i = 0; i < 8; ++i) front.rings[0]->put(front.request(BLKIF_OP_READ, 0, {page}));
  front.rings[0]->push();
  disk->await_busy(8);
  front.say(State::kClosing);
  front.say(State::kClosed);
  EXPECT_EQ(zone.grants.mapped(page), 8u);
  disk->held = false;
  ASSERT_TRUE(front.await(State::kClosed));
  EXPECT_EQ(zone.grants.mapped(), 0u);
  EXPECT_FALSE(zone.events.bound(front.rings[0]->port));
  // And back.
  front.say(State::kInitialising);
  ASSERT_TRUE(front.connect());
  EXPECT_EQ(front.ask(BLKIF_OP_READ, 0, {page}), BLKIF_RSP_OKAY);
}

TEST_F(BlkTest, UnplugUnderLoad) {
  for (int round = 0; round < 20; ++round) {
    add({.queues = 2});
    Blkfront<> front{zone, {.queues = 2}};
    ASSERT_TRUE(front.connect());
    const Request request = front.request(BLKIF_OP_WRITE, 0, {zone.grants.grant()});
    std::atomic<bool> stop{false};
    std::vector<std::thread> cpus;
    for (unsigned q = 0; q < 2; ++q)
      cpus.emplace_back([&, q] {
        auto& ring = *front.rings[q];
        while (!stop) {
          while (!ring.full()) ring.put(request);
          ring.push();
          zone.events.raise(ring.port);
          ring.ring.rsp_cons = std::atomic_ref{ring.shared->rsp_prod}.load();
        }
      });
    auto done = zone.begin_unplug("vbd", 51712, Unplug::kAsk);
    ASSERT_TRUE(front.await(State::kClosing));
    front.say(State::kClosing);
    front.say(State::kClosed);
    EXPECT_EQ(done.get(), Unplugged::kGone);
    stop = true;
    for (std::thread& cpu : cpus) cpu.join();
    EXPECT_EQ(zone.grants.mapped(), 0u);
  }
}

TEST_F(BlkTest, ForcedAwayFromAGuestThatGoesOn) {
  XenbusZone impatient{XenbusZone::kNotAtAll};
  ASSERT_TRUE(impatient.bus.add(
      51712, std::make_unique<BlkBackend>(core, impatient.grants, impatient.events, BlkBackend::Options{})));
  Blkfront<> front{impatient};
  ASSERT_TRUE(front.connect());
  EXPECT_EQ(impatient.unplug("vbd", 51712, Unplug::kForce), Unplugged::kForced);
  front.rings[0]->put(front.request(BLKIF_OP_READ, 0, {impatient.grants.grant()}));
  front.rings[0]->push();
  impatient.events.raise(front.rings[0]->port);
  EXPECT_EQ(impatient.grants.mapped(), 0u);
}

// Bad guests.

struct BadBlkTest : BlkTest {
  void SetUp() override {
    add({.queues = 2});
    ASSERT_TRUE(front.connect());
  }
  // After whatever was done, a good request still works.
  void expect_alive() {
    const u32 page = zone.grants.grant();
    EXPECT_EQ(front.ask(BLKIF_OP_READ, 0, {page}), BLKIF_RSP_OKAY);
    EXPECT_EQ(zone.grants.mapped(), 1u) << "only the ring";
  }
  Blkfront<> front{zone};
};

TEST_F(BadBlkTest, UnknownOperations) {
  for (const unsigned operation : {4u, 7u, 100u, 255u})
    EXPECT_EQ(front.ask(static_cast<u8>(operation), 0, {zone.grants.grant()}), BLKIF_RSP_EOPNOTSUPP);
  EXPECT_EQ(count(BlkCounter::kUnknownOperations), 4u);
  expect_alive();
}

TEST_F(BadBlkTest, AbsurdSegmentCounts) {
  const u32 page = zone.grants.grant();
  EXPECT_EQ(front.ask(BLKIF_OP_READ, 0, {}), BLKIF_RSP_ERROR);
  EXPECT_EQ(front.ask(BLKIF_OP_WRITE, 0, {}), BLKIF_RSP_ERROR);
  for (const std::size_t segments : {12u, 255u})
    EXPECT_EQ(front.ask(BLKIF_OP_WRITE, 0, std::vector<u32>(segments, page)), BLKIF_RSP_ERROR);
  EXPECT_EQ(front.ask(BLKIF_OP_FLUSH_DISKCACHE, 0, std::vector<u32>(200, page)), BLKIF_RSP_ERROR);
  EXPECT_EQ(count(BlkCounter::kBadRequests), 5u);
  EXPECT_EQ(disk->journal(), "");
  expect_alive();
}

TEST_F(BadBlkTest, SectorsOutsideTheirPage) {
  const u32 page = zone.grants.grant();
  const u8 wrong[][2] = {{3, 2}, {0, 8}, {8, 8}, {255, 255}, {7, 0}, {0, 255}};
  for (const auto& [first, last] : wrong) {
    Request request = front.request(BLKIF_OP_READ, 0, {page, page});
    request.seg[1].first_sect = first;
    request.seg[1].last_sect = last;
    EXPECT_EQ(front.rings[0]->ask(request), BLKIF_RSP_ERROR);
  }
  EXPECT_EQ(zone.grants.writes(page), 0u);
  expect_alive();
}

TEST_F(BadBlkTest, SectorsOutsideTheDisk) {
  const u32 page = zone.grants.grant();
  for (const u64 sector : {u64{8185}, u64{8192}, u64{1} << 55, ~u64{0}, ~u64{0} - 7})
    EXPECT_EQ(front.ask(BLKIF_OP_READ, sector, {page}), BLKIF_RSP_ERROR);
  expect_alive();
}

TEST_F(BadBlkTest, PagesThatAreNotGranted) {
  const u32 good = zone.grants.grant(), gone = zone.grants.grant(), read_only = zone.grants.grant(false);
  zone.grants.revoke(gone);
  for (const u32 reference : {0u, 7u, gone, 4000u, 0xffff'ffffu}) {
    EXPECT_EQ(front.ask(BLKIF_OP_WRITE, 0, {good, reference}), BLKIF_RSP_ERROR);
    EXPECT_EQ(front.ask(BLKIF_OP_READ, 0, {reference, good}), BLKIF_RSP_ERROR);
  }
  EXPECT_EQ(front.ask(BLKIF_OP_READ, 0, {read_only}), BLKIF_RSP_ERROR);
  EXPECT_EQ(count(BlkCounter::kBadGrants), 11u);
  EXPECT_EQ(disk->journal(), "");
  expect_alive();
}

TEST_F(BadBlkTest, IndirectNonsense) {
  const u32 list = zone.grants.grant(), page = zone.grants.grant();
  const auto ask = [&](auto change) {
    blkif_request_indirect entry = indirect_request(zone, BLKIF_OP_READ, 0, list, std::vector<u32>(256, page));
    change(entry);
    return front.rings[0]->ask(entry);
  };
  EXPECT_EQ(ask([](auto&) {}), BLKIF_RSP_OKAY);
  EXPECT_EQ(ask([](auto& e) { e.nr_segments = 257; }), BLKIF_RSP_ERROR);
  EXPECT_EQ(ask([](auto& e) { e.nr_segments = 0xffff; }), BLKIF_RSP_ERROR);
  EXPECT_EQ(ask([](auto& e) { e.nr_segments = 0; }), BLKIF_RSP_ERROR);
  EXPECT_EQ(ask([](auto& e) { e.indirect_op = BLKIF_OP_INDIRECT; }), BLKIF_RSP_ERROR);
  EXPECT_EQ(ask([](auto& e) { e.indirect_op = BLKIF_OP_DISCARD; }), BLKIF_RSP_ERROR);
  EXPECT_EQ(ask([](auto& e) { e.indirect_op = BLKIF_OP_WRITE_BARRIER; }), BLKIF_RSP_ERROR);
  EXPECT_EQ(ask([](auto& e) { e.indirect_grefs[0] = 1; }), BLKIF_RSP_ERROR);
  std::memset(zone.grants.page(list), 0xff, kPageSize);
  blkif_request_indirect entry{};
  entry = {.operation = BLKIF_OP_INDIRECT,
           .indirect_op = BLKIF_OP_READ,
           .nr_segments = 256,
           .id = 4,
           .sector_number = 0,
           .handle = 0,
           .indirect_grefs = {list}};
  EXPECT_EQ(front.rings[0]->ask(entry), BLKIF_RSP_ERROR);
  expect_alive();
}

TEST_F(BadBlkTest, AProducerThatRunsAheadStopsItsQueueOnly) {
  ASSERT_TRUE(front.close());
  front.say(State::kInitialising);
  Blkfront<> two{zone, {.queues = 2}};
  ASSERT_TRUE(two.connect());
  std::atomic_ref{two.rings[0]->shared->req_prod}.store(33);
  for (int i = 0; i < 3; ++i) zone.events.raise(two.rings[0]->port);
  Request request = two.request(BLKIF_OP_READ, 0, {zone.grants.grant()});
  EXPECT_EQ(two.rings[1]->ask(request), BLKIF_RSP_OKAY);
  while (count(BlkCounter::kOverruns) == 0) zone.events.raise(two.rings[0]->port);
  // Nor does taking it back help, until the driver reconnects.
  std::atomic_ref{two.rings[0]->shared->req_prod}.store(1);
  for (int i = 0; i < 3; ++i) zone.events.raise(two.rings[0]->port);
  EXPECT_EQ(two.rings[1]->ask(request), BLKIF_RSP_OKAY);
  EXPECT_EQ(count(BlkCounter::kOverruns), 1u);
  EXPECT_EQ(count(BlkCounter::kRequests), 2u);
  ASSERT_TRUE(two.close());
  two.say(State::kInitialising);
  ASSERT_TRUE(two.connect());
  EXPECT_EQ(two.ask(BLKIF_OP_READ, 0, {zone.grants.grant()}), BLKIF_RSP_OKAY);
}

TEST_F(BadBlkTest, AProducerThatRunsBackwardsIsOneThatRanAhead) {
  expect_alive();
  std::atomic_ref{front.rings[0]->shared->req_prod}.store(0);
  while (count(BlkCounter::kOverruns) == 0) zone.events.raise(front.rings[0]->port);
  EXPECT_EQ(count(BlkCounter::kRequests), 1u);
}

TEST_F(BadBlkTest, ScribblingOverOurIndexesHurtsNobodyElse) {
  const u32 page = zone.grants.grant();
  for (u32 i = 0; i < 40; ++i) {
    std::atomic_ref{front.rings[0]->shared->rsp_prod}.store(i * 0x1357'9bdf);
    std::atomic_ref{front.rings[0]->shared->req_event}.store(~i);
    front.rings[0]->put(front.request(BLKIF_OP_READ, 0, {page}));
    std::atomic_ref{front.rings[0]->shared->req_prod}.store(front.rings[0]->ring.req_prod_pvt);
    zone.events.raise(front.rings[0]->port);
    while (count(BlkCounter::kRequests) < i + 1) std::this_thread::yield();
  }
  ASSERT_TRUE(front.close());
  EXPECT_EQ(zone.grants.mapped(), 0u);
}

TEST_F(BadBlkTest, AStormOfEventsIsOneLook) {
  for (int i = 0; i < 20000; ++i) zone.events.raise(front.rings[0]->port);
  expect_alive();
  EXPECT_EQ(count(BlkCounter::kRequests), 1u);
}

TEST_F(BlkTest, SetupsThatMakeNoSense) {
  struct Wrong {
    const char *name, *value;
  };
  add({.queues = 2});
  const Wrong wrong[] = {{"protocol", "arm-abi"},         {"protocol", "x86_64-abi "},
                         {"ring-page-order", "5"},        {"ring-page-order", "4294967295"},
                         {"multi-queue-num-queues", "0"}, {"multi-queue-num-queues", "3"},
                         {"multi-queue-num-queues", "2"},  // and no queue-0
                         {"ring-ref", "nonsense"},        {"ring-ref", "1"},
                         {"event-channel", ""},           {"event-channel", "4000"}};
  Blkfront<> front{zone};
  for (const Wrong& one : wrong) {
    ASSERT_TRUE(front.await(State::kInitWait));
    front.prepare();
    front.say(one.name, one.value);
    front.say(State::kInitialised);
    ASSERT_TRUE(front.await(State::kClosing)) << one.name << one.value;
    EXPECT_EQ(zone.grants.mapped(), 0u) << one.name;
    zone.store.remove(front.path + "/" + one.name);
    front.say(State::kClosed);
    ASSERT_TRUE(front.await(State::kClosed));
    front.say(State::kInitialising);
  }
  EXPECT_TRUE(front.connect());
}

TEST_F(BlkTest, AnEventChannelUsedTwiceIsRefused) {
  add({.queues = 2});
  Blkfront<> front{zone, {.queues = 2}};
  ASSERT_TRUE(front.await(State::kInitWait));
  front.prepare();
  front.say("queue-1/event-channel", front.rings[0]->port);
  front.say(State::kInitialised);
  EXPECT_TRUE(front.await(State::kClosing));
  EXPECT_EQ(zone.grants.mapped(), 0u);
  EXPECT_FALSE(zone.events.bound(front.rings[0]->port));
}

TEST_F(BlkTest, RandomEntriesAreAnsweredOneForOne) {
  add();
  Blkfront<> front{zone, {.order = 1, .persistent = true}};
  ASSERT_TRUE(front.connect());
  std::mt19937_64 random{20260729};
  const std::vector<u32> pages = zone.grants.grant_run(8);
  for (int i = 0; i < 5000; ++i) {
    Request entry{};
    for (std::size_t at = 0; at < sizeof entry; at += 8) {
      const u64 word = random();
      std::memcpy(reinterpret_cast<std::byte*>(&entry) + at, &word, 8);
    }
    entry.operation = static_cast<u8>(random() % 8);
    if (random() % 2) entry.nr_segments %= 16;
    if (random() % 2) entry.sector_number %= 8192;
    for (auto& segment : entry.seg)
      if (random() % 4) segment = {pages[random() % 8], static_cast<u8>(random() % 9), static_cast<u8>(random() % 9)};
    front.rings[0]->put(entry);
    front.rings[0]->push();
    ASSERT_TRUE(front.rings[0]->next());
  }
  ASSERT_TRUE(front.close());
}

}  // namespace
}  // namespace bulkhead::device::xenbus
