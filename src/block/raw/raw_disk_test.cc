#include "block/raw/raw_disk.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <vector>

namespace bulkhead::block {
namespace {

class RawDiskTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "bulkhead-raw-XXXXXX").string();
    const int fd = ::mkstemp(name.data());
    ASSERT_GE(fd, 0);
    ::close(fd);
    path_ = name;
  }
  void TearDown() override { std::filesystem::remove(path_); }
  std::unique_ptr<RawDisk> open_sized(u64 bytes, DiskAccess access = DiskAccess::kReadWrite) {
    std::filesystem::resize_file(path_, bytes);
    auto disk = RawDisk::open(path_, access);
    EXPECT_TRUE(disk.has_value());
    return std::move(*disk);
  }
  std::string refusal(DiskAccess access = DiskAccess::kReadWrite) {
    auto disk = RawDisk::open(path_, access);
    return disk ? "" : disk.error().message;
  }
  std::string path_;
};

std::vector<std::byte> pattern(std::size_t size, unsigned seed) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>((i * 31 + seed) >> (i % 3));
  return bytes;
}
IoBuffer whole(std::vector<std::byte>& bytes) { return {bytes.data(), bytes.size()}; }

TEST_F(RawDiskTest, ScatteredWriteIsReadBackWhole) {
  auto disk = open_sized(1_MiB);
  auto data = pattern(300 * 512, 1);
  std::vector<IoBuffer> pieces;
  for (std::size_t i = 0; i < 300; ++i) pieces.push_back({data.data() + i * 512, 512});
  EXPECT_EQ(disk->write(4096, pieces), IoStatus::kOk);
  EXPECT_EQ(disk->flush(), IoStatus::kOk);
  std::vector<std::byte> back(data.size());
  const IoBuffer buffers[] = {{back.data(), 100}, {back.data(), 0}, {back.data() + 100, back.size() - 100}};
  EXPECT_EQ(disk->read(4096, buffers), IoStatus::kOk);
  EXPECT_EQ(back, data);
}

TEST_F(RawDiskTest, WriteZeroesAndDiscardKeepTheRest) {
  for (const bool unmap : {false, true}) {
    auto disk = open_sized(1_MiB);
    auto ones = std::vector<std::byte>(1_MiB, std::byte{1});
    const IoBuffer all = whole(ones);
    ASSERT_EQ(disk->write(0, {&all, 1}), IoStatus::kOk);
    EXPECT_EQ(disk->write_zeroes(512, 128_KiB + 512, unmap), IoStatus::kOk);
    std::vector<std::byte> back(1_MiB);
    const IoBuffer out = whole(back);
    ASSERT_EQ(disk->read(0, {&out, 1}), IoStatus::kOk);
    EXPECT_EQ(back[511], std::byte{1});
    EXPECT_EQ(back[512], std::byte{0});
    EXPECT_EQ(back[128_KiB + 1023], std::byte{0});
    EXPECT_EQ(back[128_KiB + 1024], std::byte{1});
    EXPECT_EQ(disk->discard(0, 64_KiB), IoStatus::kOk);
    EXPECT_EQ(disk->size_bytes(), 1_MiB);
  }
}

TEST_F(RawDiskTest, OutOfRangeIsAnAnswer) {
  auto disk = open_sized(4096);
  auto data = pattern(1024, 2);
  const IoBuffer buffer = whole(data);
  EXPECT_EQ(disk->read(3584, {&buffer, 1}), IoStatus::kOutOfRange);
  EXPECT_EQ(disk->write(~u64{0} - 511, {&buffer, 1}), IoStatus::kOutOfRange);
  EXPECT_EQ(disk->discard(4096, 512), IoStatus::kOutOfRange);
  EXPECT_EQ(disk->write_zeroes(512, ~u64{0}, false), IoStatus::kOutOfRange);
  const IoBuffer absurd[] = {{data.data(), ~u64{0} - 511}, {data.data(), 1024}};
  EXPECT_EQ(disk->read(0, absurd), IoStatus::kOutOfRange);
}

TEST_F(RawDiskTest, ReadOnlyRefusesEveryChange) {
  auto disk = open_sized(4096, DiskAccess::kReadOnly);
  auto data = pattern(512, 3);
  const IoBuffer buffer = whole(data);
  EXPECT_TRUE(disk->read_only());
  EXPECT_FALSE(disk->supports_discard());
  EXPECT_EQ(disk->write(0, {&buffer, 1}), IoStatus::kReadOnly);
  EXPECT_EQ(disk->discard(0, 512), IoStatus::kReadOnly);
  EXPECT_EQ(disk->write_zeroes(0, 512, true), IoStatus::kReadOnly);
  EXPECT_EQ(disk->read(0, {&buffer, 1}), IoStatus::kOk);
}

TEST_F(RawDiskTest, FileCutShortUnderUsIsAnIoError) {
  auto disk = open_sized(8192);
  std::filesystem::resize_file(path_, 4096);
  auto data = pattern(8192, 4);
  const IoBuffer buffer = whole(data);
  EXPECT_EQ(disk->read(0, {&buffer, 1}), IoStatus::kIoError);
}

TEST_F(RawDiskTest, OddSizesAreRefusedWithWhatToDo) {
  std::filesystem::resize_file(path_, 1000);
  EXPECT_NE(refusal().find("truncate -s 1024"), std::string::npos);
  std::filesystem::resize_file(path_, 0);
  EXPECT_NE(refusal().find("is empty"), std::string::npos);
}

TEST_F(RawDiskTest, WriterIsAloneAndReadersShare) {
  {
    auto writer = open_sized(4096);
    EXPECT_NE(refusal().find("in use"), std::string::npos);
    EXPECT_NE(refusal(DiskAccess::kReadOnly).find("in use"), std::string::npos);
  }
  auto reader = open_sized(4096, DiskAccess::kReadOnly);
  EXPECT_EQ(refusal(DiskAccess::kReadOnly), "");
  EXPECT_NE(refusal().find("in use"), std::string::npos);
}

TEST_F(RawDiskTest, WhatIsNoDiskIsRefused) {
  std::filesystem::remove(path_);
  EXPECT_NE(refusal().find("No such file"), std::string::npos);
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  EXPECT_NE(refusal(DiskAccess::kReadOnly).find("neither a file nor a block device"), std::string::npos);
  EXPECT_NE(RawDisk::open("/tmp", DiskAccess::kReadOnly).error().message.find("neither"), std::string::npos);
  EXPECT_NE(RawDisk::open("/dev/null", DiskAccess::kReadOnly).error().message.find("neither"), std::string::npos);
}

}  // namespace
}  // namespace bulkhead::block
