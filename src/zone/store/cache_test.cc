#include "zone/store/cache.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <utime.h>

#include <filesystem>
#include <fstream>
#include <thread>

namespace bulkhead::zone {
namespace {

namespace fs = std::filesystem;

class CacheTest : public ::testing::Test {
 protected:
  CacheTest() {
    char pattern[] = "/tmp/bulkhead-cache-test-XXXXXX";
    root_ = ::mkdtemp(pattern);
  }
  ~CacheTest() override { fs::remove_all(root_); }
  static Cache::Maker writes(std::string text, int* count = nullptr) {
    return [text, count](const std::string& path) -> Result<void> {
      if (count != nullptr) ++*count;
      std::ofstream{path} << text;
      return {};
    };
  }
  std::string root_;
  Progress progress_{Progress::Show::kNever};
  Workshop workshop_{progress_};
};

TEST_F(CacheTest, MakesOnceThenFinds) {
  Cache cache = Cache::open_at(root_ + "/a/b").value();
  int made = 0;
  const std::string path = cache.get("kind", "name", workshop_, 0, writes("hello", &made)).value();
  EXPECT_EQ(cache.get("kind", "name", workshop_, 0, writes("other", &made)).value(), path);
  EXPECT_EQ(made, 1);
  std::string text;
  std::ifstream{path} >> text;
  EXPECT_EQ(text, "hello");
}

TEST_F(CacheTest, FailedMakerLeavesNothing) {
  Cache cache = Cache::open_at(root_).value();
  const auto result = cache.get("kind", "name", workshop_, 0, [](const std::string& path) -> Result<void> {
    std::ofstream{path} << "half";
    return fail("no");
  });
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message, "no");
  EXPECT_TRUE(fs::is_empty(cache.folder("kind")));
}

TEST_F(CacheTest, LeftoversOfAKilledProcessAreRemoved) {
  Cache cache = Cache::open_at(root_).value();
  fs::create_directories(cache.folder("kind") + "/.making-old/deep");
  ASSERT_TRUE(cache.get("kind", "new", workshop_, 0, writes("x")));
  EXPECT_FALSE(fs::exists(cache.folder("kind") + "/.making-old"));
}

TEST_F(CacheTest, OldEntriesGiveWay) {
  Cache cache = Cache::open_at(root_).value();
  for (const std::string name : {"a", "b", "c"}) {
    const std::string path = cache.get("kind", name, workshop_, 2, writes(name)).value();
    const utimbuf old{1000 + name[0], 1000 + name[0]};
    if (name != "c") ::utime(path.c_str(), &old);
  }
  EXPECT_FALSE(fs::exists(cache.folder("kind") + "/a"));
  EXPECT_TRUE(fs::exists(cache.folder("kind") + "/b"));
  EXPECT_TRUE(fs::exists(cache.folder("kind") + "/c"));
}

TEST_F(CacheTest, TwoAtOnceMakeItOnce) {
  std::atomic<int> made = 0;
  const auto once = [&] {
    Progress progress{Progress::Show::kNever};
    Workshop workshop{progress};
    Cache cache = Cache::open_at(root_).value();
    ASSERT_TRUE(cache.get("kind", "name", workshop, 0, [&](const std::string& path) -> Result<void> {
      ++made;
      std::this_thread::sleep_for(std::chrono::milliseconds{20});
      std::ofstream{path} << "x";
      return {};
    }));
  };
  std::thread other{once};
  once();
  other.join();
  EXPECT_EQ(made, 1);
}

TEST_F(CacheTest, UnusablePlaceIsSaid) {
  std::ofstream{root_ + "/file"} << "x";
  const auto cache = Cache::open_at(root_ + "/file/below");
  ASSERT_FALSE(cache);
  EXPECT_TRUE(cache.error().message.contains("/file/below"));
}

}  // namespace
}  // namespace bulkhead::zone
