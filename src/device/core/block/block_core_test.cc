#include "device/core/block/block_core.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "block/testing/memory_node.h"
#include "device/core/block/block_service.h"

namespace bulkhead::device {
namespace {

using block::DiskAccess;
using block::IoBuffer;
using block::IoStatus;
using block::WriteFlags;
using block::testing::MemoryDisk;

struct Rig {
  explicit Rig(DiskAccess access = DiskAccess::kReadWrite) : disk{8 * 512, access} {}
  IoStatus run(BlockCore::Answer answer) { return disk.disk->executor().run(std::move(answer)); }
  MemoryDisk disk;
  BlockCore core{*disk.disk};
};

TEST(BlockCore, SectorsBecomeBytes) {
  Rig rig;
  std::array<std::byte, 1024> data;
  data.fill(std::byte{7});
  const IoBuffer buffers[] = {{data.data(), 100}, {data.data() + 100, 924}};
  EXPECT_EQ(rig.run(rig.core.write(6, buffers)), IoStatus::kOk);
  EXPECT_EQ(rig.disk->bytes[6 * 512 - 1], std::byte{0});
  EXPECT_EQ(rig.disk->bytes[6 * 512], std::byte{7});
  EXPECT_EQ(rig.run(rig.core.read(3, buffers)), IoStatus::kOk);
  EXPECT_EQ(data[0], std::byte{0});
  EXPECT_EQ(rig.run(rig.core.discard(5, 3)), IoStatus::kOk);
  EXPECT_EQ(rig.disk->discarded, 3u * 512);
  EXPECT_EQ(rig.run(rig.core.flush()), IoStatus::kOk);
  EXPECT_EQ(rig.disk->journal(), "wrdf");
  EXPECT_EQ(rig.core.counters()[BlockCore::kBytesRead].value(), 1024u);
  EXPECT_EQ(rig.core.counters()[BlockCore::kErrors].value(), 0u);
}

TEST(BlockCore, WhatDoesNotFitNeverReachesTheDisk) {
  Rig rig;
  BlockCore& core = rig.core;
  std::array<std::byte, 1024> data;
  const IoBuffer two{data.data(), 1024}, odd{data.data(), 511}, absurd{data.data(), ~u64{0} - 511};
  EXPECT_EQ(rig.run(core.read(7, {&two, 1})), IoStatus::kOutOfRange);
  EXPECT_EQ(rig.run(core.read(~u64{0}, {&two, 1})), IoStatus::kOutOfRange);
  EXPECT_EQ(rig.run(core.read(u64{1} << 55, {&two, 1})), IoStatus::kOutOfRange);
  EXPECT_EQ(rig.run(core.write(0, {&odd, 1})), IoStatus::kOutOfRange);
  EXPECT_EQ(rig.run(core.write(0, {&absurd, 1})), IoStatus::kOutOfRange);
  EXPECT_EQ(rig.run(core.discard(8, 1)), IoStatus::kOutOfRange);
  EXPECT_EQ(rig.run(core.write_zeroes(0, ~u32{0}, WriteFlags::kMayUnmap)), IoStatus::kOutOfRange);
  EXPECT_EQ(rig.disk->journal(), "");
  EXPECT_EQ(core.counters()[BlockCore::kErrors].value(), 7u);
}

TEST(BlockCore, ReadOnlyIsSaidBeforeAnythingElse) {
  Rig rig{DiskAccess::kReadOnly};
  std::array<std::byte, 512> data;
  const IoBuffer one{data.data(), 512};
  EXPECT_EQ(rig.run(rig.core.write(0, {&one, 1})), IoStatus::kReadOnly);
  EXPECT_EQ(rig.run(rig.core.discard(0, 1)), IoStatus::kReadOnly);
  EXPECT_EQ(rig.run(rig.core.write_zeroes(0, 1, WriteFlags::kNone)), IoStatus::kReadOnly);
  EXPECT_EQ(rig.disk->journal(), "");
}

// A device that reads a sector at each kick.
struct Reader {
  static block::Detached read(Reader* self, unsigned queue) {
    const BlockService::Flight flight{self->service, queue};
    const IoBuffer buffer{self->data.data(), 512};
    self->last = co_await self->core.read(0, {&buffer, 1});
    ++self->done;
    self->service.signal_soon(queue);
  }
  explicit Reader(BlockCore& on) : core{on} {}
  BlockCore& core;
  std::array<std::byte, 512> data{};
  std::atomic<unsigned> done{0}, signals{0};
  std::atomic<IoStatus> last{IoStatus::kOk};
  BlockService service{core,
                       {.serve =
                            [this](unsigned queue) {
                              for (int i = 0; i < 10; ++i) read(this, queue);
                            },
                        .signal = [this](unsigned) { ++signals; }}};
};

TEST(BlockService, ManyCompletionsAreOneSignal) {
  Rig rig;
  Reader reader{rig.core};
  reader.service.kick(0b1);
  while (reader.done < 10) std::this_thread::yield();
  reader.service.paused([] {});
  EXPECT_EQ(reader.signals, 1u);
  EXPECT_EQ(rig.core.queue(0).latency().count(), 10u);
}

TEST(BlockService, APauseWaitsForWhatIsInFlightAndPutsKicksOff) {
  Rig rig;
  Reader reader{rig.core};
  rig.disk->held = true;
  reader.service.kick(0b10);
  rig.disk->await_busy(10);
  std::thread release{[&] {
    std::this_thread::sleep_for(std::chrono::milliseconds{10});
    rig.disk->held = false;
  }};
  reader.service.paused([&] {
    EXPECT_EQ(reader.done, 10u);
    reader.service.kick(0b1);
    std::this_thread::sleep_for(std::chrono::milliseconds{10});
    EXPECT_EQ(reader.done, 10u);
  });
  release.join();
  while (reader.done < 20) std::this_thread::yield();
}

TEST(BlockService, AbandonedRequestsDoNotWaitForTheHostToRecover) {
  block::DiskOptions options;
  options.on_read_error = block::ErrorAction::kWait;
  MemoryDisk disk{8 * 512, DiskAccess::kReadWrite, options};
  BlockCore core{*disk.disk};
  Reader reader{core};
  disk->answer = IoStatus::kIoError;
  reader.service.kick(0b1);
  disk->await_busy(0);
  reader.service.abandon_waiting();
  reader.service.paused([] {});
  while (reader.done < 10) {  // those begun after the first look are given up, too
    reader.service.abandon_waiting();
    reader.service.paused([] {});
  }
  EXPECT_NE(reader.last, IoStatus::kOk);
}

TEST(BlockService, EndsUnderKicks) {
  Rig rig;
  for (int round = 0; round < 50; ++round) {
    Reader reader{rig.core};
    for (int i = 0; i < 20; ++i) reader.service.kick(0b11);
  }
}

}  // namespace
}  // namespace bulkhead::device
