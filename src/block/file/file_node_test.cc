#include "block/file/file_node.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <vector>

namespace bulkhead::block {
namespace {

struct Setup {
  IoEngineKind engine;
  bool direct;
};

std::vector<std::byte> pattern(std::size_t size, unsigned seed) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>((i * 31 + seed) >> (i % 3));
  return bytes;
}

class FileNodeTest : public ::testing::TestWithParam<Setup> {
 protected:
  void SetUp() override {
    // Where the build is: a tmpfs for temporary files may have no direct I/O.
    std::string name = (std::filesystem::current_path() / "bulkhead-file-XXXXXX").string();
    const int fd = ::mkstemp(name.data());
    ASSERT_GE(fd, 0);
    ::close(fd);
    path_ = name;
    auto made = Executor::create({.engine = GetParam().engine});
    if (!made && GetParam().engine == IoEngineKind::kUring) GTEST_SKIP() << made.error().message;
    executor_ = std::move(*made);
  }
  void TearDown() override { std::filesystem::remove(path_); }
  FileOptions options(DiskAccess access = DiskAccess::kReadWrite) {
    return {.path = path_, .access = access, .direct = GetParam().direct};
  }
  std::shared_ptr<FileNode> open_sized(u64 bytes, DiskAccess access = DiskAccess::kReadWrite, bool growable = false) {
    std::filesystem::resize_file(path_, bytes);
    FileOptions what = options(access);
    what.growable = growable;
    auto node = FileNode::open(*executor_, what);
    EXPECT_TRUE(node.has_value()) << node.error().message;
    return *node;
  }
  std::string refusal(DiskAccess access = DiskAccess::kReadWrite) {
    auto node = FileNode::open(*executor_, options(access));
    return node ? "" : node.error().message;
  }
  IoStatus read(Node& node, u64 offset, std::span<std::byte> to) { return executor_->run(node.read_bytes(offset, to)); }
  IoStatus write(Node& node, u64 offset, std::span<const std::byte> from, WriteFlags flags = WriteFlags::kNone) {
    return executor_->run(node.write_bytes(offset, from, flags));
  }
  std::string path_;
  std::unique_ptr<Executor> executor_;
};

TEST_P(FileNodeTest, ScatteredUnalignedWriteIsReadBackWhole) {
  auto node = open_sized(2_MiB);
  auto data = pattern(1500 * 512, 1);
  std::vector<IoBuffer> pieces;
  for (std::size_t i = 0; i < 1500; ++i) pieces.push_back({data.data() + i * 512, 512});  // more than one call takes
  EXPECT_EQ(executor_->run(node->write(1000, pieces)), IoStatus::kOk);
  EXPECT_EQ(executor_->run(node->flush()), IoStatus::kOk);
  std::vector<std::byte> back(data.size());
  const IoBuffer buffers[] = {{back.data(), 100}, {back.data(), 0}, {back.data() + 100, back.size() - 100}};
  EXPECT_EQ(executor_->run(node->read(1000, buffers)), IoStatus::kOk);
  EXPECT_EQ(back, data);
  std::array<std::byte, 1000> before;
  EXPECT_EQ(read(*node, 0, before), IoStatus::kOk);
  EXPECT_TRUE(all_zero(std::span<const std::byte>{before}));
}

Task<void> write_one(Node* node, u64 offset, std::byte value, IoStatus* status) {
  const std::vector<std::byte> data(100, value);
  *status = co_await node->write_bytes(offset, data);
}
TEST_P(FileNodeTest, NeighboursWrittenAtOnceDoNotUndoOneAnother) {
  auto node = open_sized(64_KiB);
  std::array<IoStatus, 64> results{};
  executor_->run([&] {
    for (u64 i = 0; i < 64; ++i)
      executor_->spawn(write_one(node.get(), i * 100, static_cast<std::byte>(i + 1), &results[i]));
  });
  executor_->run(node->wait_idle());
  for (const IoStatus status : results) EXPECT_EQ(status, IoStatus::kOk);
  std::vector<std::byte> back(6400);
  ASSERT_EQ(read(*node, 0, back), IoStatus::kOk);
  for (std::size_t i = 0; i < back.size(); ++i) ASSERT_EQ(back[i], static_cast<std::byte>(i / 100 + 1)) << i;
}

TEST_P(FileNodeTest, WriteZeroesAndDiscardKeepTheRest) {
  for (const WriteFlags flags : {WriteFlags::kNone, WriteFlags::kMayUnmap, WriteFlags::kFua}) {
    auto node = open_sized(1_MiB);
    ASSERT_EQ(write(*node, 0, std::vector<std::byte>(1_MiB, std::byte{1})), IoStatus::kOk);
    EXPECT_EQ(executor_->run(node->write_zeroes(500, 128_KiB + 512, flags)), IoStatus::kOk);
    std::vector<std::byte> back(1_MiB);
    ASSERT_EQ(read(*node, 0, back), IoStatus::kOk);
    EXPECT_EQ(back[499], std::byte{1});
    EXPECT_EQ(back[500], std::byte{0});
    EXPECT_EQ(back[128_KiB + 1011], std::byte{0});
    EXPECT_EQ(back[128_KiB + 1012], std::byte{1});
    EXPECT_EQ(executor_->run(node->discard(0, 64_KiB)), IoStatus::kOk);
    EXPECT_EQ(node->size(), 1_MiB);
  }
}

TEST_P(FileNodeTest, HolesAreKnown) {
  auto node = open_sized(4_MiB);
  ASSERT_EQ(write(*node, 1_MiB, pattern(1_MiB, 3)), IoStatus::kOk);
  const auto hole = executor_->run(node->block_status(0, 4_MiB));
  ASSERT_TRUE(hole.has_value());
  EXPECT_EQ(hole->kind, BlockStatus::Kind::kZero);
  EXPECT_EQ(hole->length, 1_MiB);
  const auto data = executor_->run(node->block_status(1_MiB, 3_MiB));
  EXPECT_EQ(data->kind, BlockStatus::Kind::kData);
  EXPECT_EQ(data->length, 1_MiB);
  EXPECT_EQ(data->host_offset, 1_MiB);
  EXPECT_EQ(executor_->run(node->block_status(3_MiB, 9_MiB))->length, 1_MiB);
}

TEST_P(FileNodeTest, UnderAFormatItGrowsAndReadsZeroesBehindItsEnd) {
  auto node = open_sized(0, DiskAccess::kReadWrite, true);
  EXPECT_EQ(write(*node, 100, pattern(10, 1)), IoStatus::kOk);
  std::vector<std::byte> back(64_KiB, std::byte{7});
  EXPECT_EQ(read(*node, 90, back), IoStatus::kOk);
  EXPECT_TRUE(std::equal(back.begin() + 10, back.begin() + 20, pattern(10, 1).begin()));
  EXPECT_TRUE(all_zero(std::span<const std::byte>{back}.subspan(20)));
  EXPECT_EQ(executor_->run(node->write_zeroes(1_MiB, 1_MiB)), IoStatus::kOk);
  EXPECT_EQ(node->size(), 2_MiB);
  EXPECT_EQ(executor_->run(node->truncate(64_KiB)), IoStatus::kOk);
  EXPECT_EQ(std::filesystem::file_size(path_), 64_KiB);
}

// As if another request had just written there and not been answered yet.
TEST_P(FileNodeTest, ZeroesBehindTheEndCutNothingOffThatIsBeingWritten) {
  auto node = open_sized(64_KiB, DiskAccess::kReadWrite, true);
  std::filesystem::resize_file(path_, 4_MiB);
  EXPECT_EQ(executor_->run(node->write_zeroes(32_KiB, 1_MiB)), IoStatus::kOk);
  EXPECT_EQ(std::filesystem::file_size(path_), 4_MiB);
  EXPECT_EQ(node->size(), 1_MiB + 32_KiB);
}

TEST_P(FileNodeTest, OutOfRangeIsAnAnswer) {
  auto node = open_sized(4096);
  auto data = pattern(1024, 2);
  EXPECT_EQ(read(*node, 3584, data), IoStatus::kOutOfRange);
  EXPECT_EQ(write(*node, ~u64{0} - 511, data), IoStatus::kOutOfRange);
  EXPECT_EQ(executor_->run(node->discard(4096, 512)), IoStatus::kOutOfRange);
  EXPECT_EQ(executor_->run(node->write_zeroes(512, ~u64{0})), IoStatus::kOutOfRange);
  EXPECT_EQ(executor_->run(node->block_status(4096, 1)).error(), IoStatus::kOutOfRange);
  const IoBuffer absurd[] = {{data.data(), ~u64{0} - 511}, {data.data(), 1024}};
  EXPECT_EQ(executor_->run(node->read(0, absurd)), IoStatus::kOutOfRange);
  node.reset();
  auto growable = open_sized(4096, DiskAccess::kReadOnly, true);
  EXPECT_EQ(read(*growable, ~u64{0} - 511, data), IoStatus::kOutOfRange);
}

TEST_P(FileNodeTest, ReadOnlyRefusesEveryChange) {
  auto node = open_sized(4096, DiskAccess::kReadOnly);
  auto data = pattern(512, 3);
  EXPECT_TRUE(node->read_only());
  EXPECT_FALSE(node->supports_discard());
  EXPECT_EQ(write(*node, 0, data), IoStatus::kReadOnly);
  EXPECT_EQ(executor_->run(node->discard(0, 512)), IoStatus::kReadOnly);
  EXPECT_EQ(executor_->run(node->write_zeroes(0, 512)), IoStatus::kReadOnly);
  EXPECT_EQ(executor_->run(node->truncate(512)), IoStatus::kReadOnly);
  EXPECT_EQ(read(*node, 0, data), IoStatus::kOk);
}

TEST_P(FileNodeTest, FileCutShortUnderUsIsAnIoErrorWithWords) {
  auto node = open_sized(8192);
  std::filesystem::resize_file(path_, 4096);
  auto data = pattern(8192, 4);
  EXPECT_EQ(read(*node, 0, data), IoStatus::kIoError);
  EXPECT_NE(node->last_error().find(path_), std::string::npos);
  EXPECT_EQ(node->stats().counters[NodeStats::kErrors].value(), 1u);
}

TEST_P(FileNodeTest, OddSizesAreRefusedWithWhatToDo) {
  std::filesystem::resize_file(path_, 1000);
  EXPECT_NE(refusal().find("truncate -s 1024"), std::string::npos);
  std::filesystem::resize_file(path_, 0);
  EXPECT_NE(refusal().find("is empty"), std::string::npos);
}

TEST_P(FileNodeTest, WriterIsAloneAndReadersShare) {
  {
    auto writer = open_sized(4096);
    EXPECT_NE(refusal().find("in use"), std::string::npos);
    EXPECT_NE(refusal(DiskAccess::kReadOnly).find("in use"), std::string::npos);
    FileOptions beside = options(DiskAccess::kReadOnly);
    beside.lock = FileLock::kShared;
    EXPECT_TRUE(FileNode::open(*executor_, beside).has_value());
  }
  auto reader = open_sized(4096, DiskAccess::kReadOnly);
  EXPECT_EQ(refusal(DiskAccess::kReadOnly), "");
  EXPECT_NE(refusal().find("in use"), std::string::npos);
}

TEST_P(FileNodeTest, WhatIsNoDiskIsRefused) {
  std::filesystem::remove(path_);
  EXPECT_NE(refusal().find("No such file"), std::string::npos);
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  EXPECT_NE(refusal(DiskAccess::kReadOnly), "");
  EXPECT_FALSE(FileNode::open(*executor_, {.path = "/dev/null"}).has_value());
  EXPECT_FALSE(FileNode::open(*executor_, {.path = "/"}).has_value());
}

INSTANTIATE_TEST_SUITE_P(Ways, FileNodeTest,
                         ::testing::Values(Setup{IoEngineKind::kUring, false}, Setup{IoEngineKind::kUring, true},
                                           Setup{IoEngineKind::kThreads, false}, Setup{IoEngineKind::kThreads, true}),
                         [](const auto& one) {
                           return std::string{one.param.engine == IoEngineKind::kUring ? "uring" : "threads"} +
                                  (one.param.direct ? "_direct" : "_cached");
                         });

}  // namespace
}  // namespace bulkhead::block
