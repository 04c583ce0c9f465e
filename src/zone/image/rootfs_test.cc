#include "zone/image/rootfs.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "zone/image/fingerprint.h"
#include "zone/image/pack.h"

namespace bulkhead::zone {
namespace {

namespace fs = std::filesystem;

class RootfsTest : public ::testing::Test {
 protected:
  RootfsTest() {
    char pattern[] = "/tmp/bulkhead-rootfs-XXXXXX";
    root_ = ::mkdtemp(pattern);
    fs::create_directories(root_ + "/tree/bin");
    std::ofstream{root_ + "/tree/bin/tool"} << "content";
  }
  ~RootfsTest() override { fs::remove_all(root_); }
  Cache cache() { return Cache::open_at(root_ + "/cache").value(); }
  Result<RootDisk> prepare(const std::string& source, const std::string& writable = {}) {
    Cache here = cache();
    return prepare_rootfs({source, writable}, here, workshop_);
  }
  std::string fingerprint_of_tree() { return fingerprint(root_ + "/tree").value(); }
  std::string root_;
  Progress progress_{Progress::Show::kNever};
  Workshop workshop_{progress_};
};

TEST_F(RootfsTest, FingerprintFollowsEveryChange) {
  const std::string first = fingerprint_of_tree();
  EXPECT_EQ(fingerprint_of_tree(), first);
  ::chmod((root_ + "/tree/bin/tool").c_str(), 0700);
  const std::string second = fingerprint_of_tree();
  EXPECT_NE(second, first);
  fs::create_symlink("one", root_ + "/tree/link");
  const std::string third = fingerprint_of_tree();
  EXPECT_NE(third, second);
  fs::rename(root_ + "/tree/bin/tool", root_ + "/tree/bin/tool2");
  EXPECT_NE(fingerprint_of_tree(), third);
}

TEST_F(RootfsTest, FingerprintOfNothingIsAnError) { EXPECT_FALSE(fingerprint(root_ + "/nothing")); }

TEST_F(RootfsTest, FolderIsPackedOnce) {
  if (find_tool("mkfs.erofs").empty()) GTEST_SKIP() << "mkfs.erofs is not installed";
  const RootDisk disk = prepare(root_ + "/tree").value();
  EXPECT_EQ(disk.format, RootFormat::kErofs);
  EXPECT_EQ(detect_root_format(disk.path).value(), RootFormat::kErofs);
  EXPECT_EQ(prepare(root_ + "/tree/.").value().path, disk.path);
  std::ofstream{root_ + "/tree/more"} << "x";
  EXPECT_NE(prepare(root_ + "/tree").value().path, disk.path);
}

TEST_F(RootfsTest, WritableImageIsMadeFromTheFolder) {
  if (find_tool("mke2fs").empty()) GTEST_SKIP() << "mke2fs is not installed";
  const RootDisk disk = prepare(root_ + "/tree", root_ + "/disk.img").value();
  EXPECT_EQ(disk.format, RootFormat::kExt4);
  EXPECT_EQ(disk.access, RootAccess::kWritable);
  EXPECT_EQ(prepare("", root_ + "/disk.img").value().path, root_ + "/disk.img");  // it exists: the source is not needed
  for (const auto& entry : fs::directory_iterator{root_})
    EXPECT_FALSE(entry.path().string().contains(".making-")) << entry.path();
}

TEST_F(RootfsTest, WritableImageIsMadeFromAnErofsImage) {
  if (find_tool("mkfs.erofs").empty() || find_tool("mke2fs").empty()) GTEST_SKIP() << "no mkfs.erofs or mke2fs";
  ASSERT_TRUE(pack_erofs(root_ + "/tree", root_ + "/in.erofs", workshop_));
  EXPECT_EQ(prepare(root_ + "/in.erofs", root_ + "/out.img").value().format, RootFormat::kExt4);
  EXPECT_FALSE(prepare("", root_ + "/in.erofs"));  // erofs itself cannot be written to
}

TEST_F(RootfsTest, WhatIsNotThereIsNamed) {
  EXPECT_TRUE(prepare(root_ + "/nothing").error().message.contains(root_ + "/nothing"));
  EXPECT_FALSE(prepare(root_ + "/nothing", root_ + "/disk.img"));
  EXPECT_FALSE(fs::exists(root_ + "/disk.img"));
  EXPECT_FALSE(prepare("", root_ + "/tree"));
}

TEST_F(RootfsTest, NonsenseIsNotADisk) {
  std::ofstream{root_ + "/short"} << "MZ";
  std::ofstream{root_ + "/long"} << std::string(10000, 'x');
  for (const char* const name : {"/short", "/long"})
    EXPECT_TRUE(prepare(root_ + name).error().message.contains("neither an erofs nor an ext4")) << name;
}

}  // namespace
}  // namespace bulkhead::zone
