#include "block/disk/disk.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "block/disk/open_disk.h"
#include "block/testing/memory_node.h"

namespace bulkhead::block {
namespace {

using testing::MemoryDisk;

template <class T>
T run(Disk& disk, Task<T> task) {
  return disk.executor().run(std::move(task));
}

struct Sector {
  std::array<std::byte, 512> bytes{};
  IoBuffer buffer{bytes.data(), 512};
  Buffers list() const { return {&buffer, 1}; }
};

TEST(Disk, CacheModes) {
  Sector sector;
  for (const auto& [mode, fuas, flushes] :
       {std::tuple{CacheMode::kWriteBack, 0u, 1u}, {CacheMode::kWriteThrough, 1u, 1u}, {CacheMode::kUnsafe, 0u, 0u}}) {
    DiskOptions options;
    options.cache = mode;
    MemoryDisk disk{4096, DiskAccess::kReadWrite, options};
    EXPECT_EQ(run(*disk.disk, disk.disk->write(0, sector.list())), IoStatus::kOk);
    EXPECT_EQ(run(*disk.disk, disk.disk->flush()), IoStatus::kOk);
    EXPECT_EQ(disk->fuas, fuas);
    EXPECT_EQ(disk->flushes, flushes);
  }
}

Task<void> note(Disk* disk, Sector* sector, std::atomic<int>* done, IoStatus* status) {
  *status = co_await disk->write(0, sector->list());
  ++*done;
}

TEST(Disk, APauseWaitsForWhatIsInFlightAndHoldsTheRestBack) {
  MemoryDisk memory{4096};
  Disk& disk = *memory.disk;
  Sector sector;
  std::atomic<int> done{0};
  std::array<IoStatus, 2> status{};
  memory->held = true;
  disk.executor().post([&] { disk.executor().spawn(note(&disk, &sector, &done, &status[0])); });
  memory->await_busy();
  std::thread release{[&] {
    std::this_thread::sleep_for(std::chrono::milliseconds{10});
    memory->held = false;
  }};
  run(disk, disk.pause());
  EXPECT_EQ(done, 1);
  release.join();
  disk.executor().run([&] { disk.executor().spawn(note(&disk, &sector, &done, &status[1])); });
  EXPECT_EQ(done, 1);
  EXPECT_EQ(memory->journal(), "w");
  disk.executor().run([&] { disk.resume(); });
  while (done < 2) std::this_thread::yield();
  EXPECT_EQ(status[1], IoStatus::kOk);
}

TEST(Disk, ErrorsAreReportedOrIgnoredByPolicy) {
  Sector sector;
  for (const auto& [action, expected] :
       {std::pair{ErrorAction::kReport, IoStatus::kNoSpace}, {ErrorAction::kIgnore, IoStatus::kOk}}) {
    DiskOptions options;
    options.on_write_error = action;
    MemoryDisk disk{4096, DiskAccess::kReadWrite, options};
    disk->answer = IoStatus::kNoSpace;
    EXPECT_EQ(run(*disk.disk, disk.disk->write(0, sector.list())), expected);
    EXPECT_EQ(run(*disk.disk, disk.disk->read(0, sector.list())), IoStatus::kNoSpace)
        << "reads have a policy of their own";
    EXPECT_EQ(run(*disk.disk, disk.disk->write(4096, sector.list())), IoStatus::kOutOfRange)
        << "what is wrong with the request is always said";
  }
}

TEST(Disk, AFullHostMakesWritersWaitAndNothingIsLost) {
  DiskOptions options;
  options.on_write_error = ErrorAction::kWaitNoSpace;
  MemoryDisk memory{4096, DiskAccess::kReadWrite, options};
  Disk& disk = *memory.disk;
  std::vector<IoStatus> told;
  std::mutex mutex;
  disk.set_on_wait([&](IoStatus why) {
    const std::lock_guard lock{mutex};
    told.push_back(why);
  });
  memory->answer = IoStatus::kNoSpace;
  Sector sector;
  sector.bytes.fill(std::byte{9});
  std::atomic<int> done{0};
  std::array<IoStatus, 3> status{};
  disk.executor().run([&] {
    for (IoStatus& one : status) disk.executor().spawn(note(&disk, &sector, &done, &one));
  });
  while (memory->journal().empty()) std::this_thread::yield();
  EXPECT_EQ(done, 0);
  memory->answer = IoStatus::kOk;  // there is space again
  disk.retry_now();
  while (done < 3) std::this_thread::yield();
  for (const IoStatus one : status) EXPECT_EQ(one, IoStatus::kOk);
  EXPECT_EQ(memory->bytes[0], std::byte{9});
  const std::lock_guard lock{mutex};
  ASSERT_GE(told.size(), 2u);
  EXPECT_EQ(told.front(), IoStatus::kNoSpace);
  EXPECT_EQ(told.back(), IoStatus::kOk);
}

TEST(Disk, OtherErrorsAreReportedWhereOnlySpaceIsWaitedFor) {
  DiskOptions options;
  options.on_write_error = ErrorAction::kWaitNoSpace;
  MemoryDisk disk{4096, DiskAccess::kReadWrite, options};
  disk->answer = IoStatus::kIoError;
  Sector sector;
  EXPECT_EQ(run(*disk.disk, disk.disk->write(0, sector.list())), IoStatus::kIoError);
}

TEST(Disk, EndsWhileRequestsWaitForALimit) {
  DiskOptions options;
  options.limits.ops = {1, 1};
  std::atomic<int> done{0};
  std::array<IoStatus, 8> status{};
  Sector sector;
  {
    MemoryDisk memory{4096, DiskAccess::kReadWrite, options};
    Disk& disk = *memory.disk;
    disk.executor().run([&] {
      for (IoStatus& one : status) disk.executor().spawn(note(&disk, &sector, &done, &one));
    });
  }
  EXPECT_EQ(done, 8);
  EXPECT_EQ(status[0], IoStatus::kOk);
  EXPECT_EQ(status[7], IoStatus::kCancelled);
}

TEST(Disk, SizesThatAreNoDisk) {
  for (const u64 size : {u64{0}, u64{1000}}) {
    auto executor = std::move(*Executor::create());
    auto node = std::make_shared<testing::MemoryNode>(*executor, size, DiskAccess::kReadOnly);
    EXPECT_FALSE(Disk::create(std::move(executor), std::move(node)).has_value());
  }
}

std::string refusal(const std::string& text) {
  const auto parsed = parse_disk(text);
  return parsed ? "" : parsed.error().message;
}

TEST(ParseDisk, EveryOption) {
  const auto plain = parse_disk("a.img,ro");
  ASSERT_TRUE(plain.has_value());
  EXPECT_EQ(plain->path, "a.img");
  EXPECT_TRUE(plain->read_only);
  const auto full = parse_disk(
      "b,format=raw,cache=directsync,discard=ignore,aio=threads,serial=x1,werror=enospc,rerror=stop,bps=1.5M,iops-wr="
      "100,"
      "iops-wr-burst=400");
  ASSERT_TRUE(full.has_value()) << full.error().message;
  EXPECT_EQ(full->format, "raw");
  EXPECT_TRUE(full->direct);
  EXPECT_FALSE(full->discard);
  EXPECT_EQ(full->engine, IoEngineKind::kThreads);
  EXPECT_EQ(full->options.cache, CacheMode::kWriteThrough);
  EXPECT_EQ(full->options.serial, "x1");
  EXPECT_EQ(full->options.on_write_error, ErrorAction::kWaitNoSpace);
  EXPECT_EQ(full->options.on_read_error, ErrorAction::kWait);
  EXPECT_EQ(full->options.limits.bytes.per_second, 1536_KiB);
  EXPECT_EQ(full->options.limits.write_ops.per_second, 100u);
  EXPECT_EQ(full->options.limits.write_ops.burst, 400u);
  EXPECT_EQ(full->options.limits.read_ops.per_second, 0u);
}

TEST(ParseDisk, WhatIsNotUnderstoodIsNamed) {
  EXPECT_NE(refusal("").find("file"), std::string::npos);
  EXPECT_NE(refusal(",ro").find("file"), std::string::npos);
  EXPECT_NE(refusal("a,rw").find("'rw'"), std::string::npos);
  EXPECT_NE(refusal("a,colour=red").find("'colour'"), std::string::npos);
  EXPECT_NE(refusal("a,cache=fast").find("writeback, none"), std::string::npos);
  EXPECT_NE(refusal("a,rerror=enospc").find("rerror=enospc"), std::string::npos);
  EXPECT_NE(refusal("a,iops=-5").find("'-5'"), std::string::npos);
  EXPECT_NE(refusal("a,bps=10X").find("'10X'"), std::string::npos);
  EXPECT_NE(refusal("a,bps=1e400").find("1e400"), std::string::npos);
  EXPECT_NE(refusal("a,iops-burst=5").find("iops="), std::string::npos);
}

TEST(OpenDisk, AnImageThatLooksLikeAnotherFormatIsRawUnlessItIsNamedSo) {
  const std::string path = (std::filesystem::current_path() / "bulkhead-disk-test.img").string();
  std::ofstream{path} << "QFI\xfb" << std::string(1020, '\0');  // what a guest may write to its raw disk
  {
    auto disk = open_disk({.path = path});
    ASSERT_TRUE(disk.has_value()) << disk.error().message;
    EXPECT_EQ((*disk)->size_bytes(), 1024u);
  }
  auto unknown = open_disk({.path = path, .format = "vhdx"});
  EXPECT_NE(unknown.error().message.find("'vhdx'"), std::string::npos);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace bulkhead::block
