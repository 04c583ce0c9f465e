#include "device/core/block/block_core.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace bulkhead::device {
namespace {

using block::IoBuffer;
using block::IoStatus;

// Remembers what reached it; anything that does was within bounds.
class RecordingDisk final : public block::Disk {
 public:
  u64 size_bytes() const override { return 8 * 512; }
  bool read_only() const override { return read_only_; }
  IoStatus read(u64 offset, std::span<const IoBuffer>) override { return note(offset); }
  IoStatus write(u64 offset, std::span<const IoBuffer>) override { return note(offset); }
  IoStatus flush() override { return note(0); }
  IoStatus discard(u64 offset, u64) override { return note(offset); }
  IoStatus write_zeroes(u64 offset, u64, bool) override { return note(offset); }
  IoStatus note(u64 offset) {
    offsets.push_back(offset);
    return answer;
  }
  bool read_only_ = false;
  IoStatus answer = IoStatus::kOk;
  std::vector<u64> offsets;
};

TEST(BlockCore, SectorsBecomeBytes) {
  RecordingDisk disk;
  BlockCore core{disk};
  std::array<std::byte, 1024> data;
  const IoBuffer buffers[] = {{data.data(), 100}, {data.data() + 100, 924}};
  EXPECT_EQ(core.read(3, buffers), IoStatus::kOk);
  EXPECT_EQ(core.write(6, buffers), IoStatus::kOk);
  EXPECT_EQ(core.discard(5, 3), IoStatus::kOk);
  EXPECT_EQ(core.flush(), IoStatus::kOk);
  EXPECT_EQ(disk.offsets, (std::vector<u64>{3 * 512, 6 * 512, 5 * 512, 0}));
  EXPECT_EQ(core.counters()[BlockCore::kBytesRead].value(), 1024u);
  EXPECT_EQ(core.latency().count(), 4u);
}

TEST(BlockCore, WhatDoesNotFitNeverReachesTheDisk) {
  RecordingDisk disk;
  BlockCore core{disk};
  std::array<std::byte, 1024> data;
  const IoBuffer two{data.data(), 1024}, odd{data.data(), 511}, absurd{data.data(), ~u64{0} - 511};
  EXPECT_EQ(core.read(7, {&two, 1}), IoStatus::kOutOfRange);
  EXPECT_EQ(core.read(~u64{0}, {&two, 1}), IoStatus::kOutOfRange);
  EXPECT_EQ(core.read(u64{1} << 55, {&two, 1}), IoStatus::kOutOfRange);
  EXPECT_EQ(core.write(0, {&odd, 1}), IoStatus::kOutOfRange);
  EXPECT_EQ(core.write(0, {&absurd, 1}), IoStatus::kOutOfRange);
  EXPECT_EQ(core.discard(8, 1), IoStatus::kOutOfRange);
  EXPECT_EQ(core.write_zeroes(0, ~u32{0}, true), IoStatus::kOutOfRange);
  EXPECT_TRUE(disk.offsets.empty());
  EXPECT_EQ(core.counters()[BlockCore::kErrors].value(), 7u);
}

TEST(BlockCore, ReadOnlyIsSaidBeforeAnythingElse) {
  RecordingDisk disk;
  disk.read_only_ = true;
  BlockCore core{disk};
  std::array<std::byte, 512> data;
  const IoBuffer one{data.data(), 512};
  EXPECT_EQ(core.write(0, {&one, 1}), IoStatus::kReadOnly);
  EXPECT_EQ(core.discard(0, 1), IoStatus::kReadOnly);
  EXPECT_EQ(core.write_zeroes(0, 1, false), IoStatus::kReadOnly);
  EXPECT_TRUE(disk.offsets.empty());
}

}  // namespace
}  // namespace bulkhead::device
