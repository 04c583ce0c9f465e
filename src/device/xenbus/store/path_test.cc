#include "device/xenbus/store/path.h"

#include <gtest/gtest.h>

#include "device/xenbus/store/wire.h"

namespace bulkhead::device::xenbus::store {
namespace {

TEST(Path, RelativeOnesAreBelowHome) {
  EXPECT_EQ(resolve_path("device/vbd", 7), "/local/domain/7/device/vbd");
  EXPECT_EQ(resolve_path("/device", 7), "/device");
  EXPECT_EQ(resolve_path("/", 7), "/");
}

TEST(Path, NonsenseIsRefused) {
  for (const std::string_view bad : {"", "a/", "/a/", "//", "/a//b", "a b", "/a.b", "../x", "/a\n", "/\xff"})
    EXPECT_EQ(resolve_path(bad, 7), std::nullopt) << bad;
  EXPECT_EQ(resolve_path(std::string_view{"/a\0b", 4}, 7), std::nullopt);
}

TEST(Path, LengthsAreLimited) {
  EXPECT_TRUE(resolve_path(std::string(XENSTORE_REL_PATH_MAX, 'a'), 7));
  EXPECT_FALSE(resolve_path(std::string(XENSTORE_REL_PATH_MAX + 1, 'a'), 7));
  EXPECT_TRUE(resolve_path('/' + std::string(XENSTORE_ABS_PATH_MAX - 1, 'a'), 7));
  EXPECT_FALSE(resolve_path('/' + std::string(XENSTORE_ABS_PATH_MAX, 'a'), 7));
}

TEST(Path, OnlyWatchesMayBeSpecial) {
  EXPECT_EQ(resolve_watch_path("@releaseDomain", 7), "@releaseDomain");
  EXPECT_EQ(resolve_watch_path("device", 7), "/local/domain/7/device");
  EXPECT_EQ(resolve_watch_path("@a b", 7), std::nullopt);
  EXPECT_EQ(resolve_watch_path("@a/", 7), std::nullopt);
}

TEST(Path, BelowGoesByWholeNames) {
  EXPECT_TRUE(at_or_below("/a/b", "/a"));
  EXPECT_TRUE(at_or_below("/a", "/a"));
  EXPECT_TRUE(at_or_below("/a", "/"));
  EXPECT_FALSE(at_or_below("/ab", "/a"));
  EXPECT_FALSE(at_or_below("/a", "/a/b"));
  EXPECT_FALSE(at_or_below("@x", "/"));
}

TEST(Path, Parents) {
  EXPECT_EQ(parent_of("/a/b"), "/a");
  EXPECT_EQ(parent_of("/a"), "/");
  EXPECT_EQ(parent_of("/"), "/");
}

TEST(Permissions, TextBothWays) {
  for (const std::string_view text : {"n0", "r7", "w65535", "b12"})
    EXPECT_EQ(format_permission(parse_permission(text).value()), text);
  for (const std::string_view bad :
       {"", "n", "x1", "r-1", "r65536", "r1x", "R1", "r 1", "r+1", "r99999999999999999999"})
    EXPECT_EQ(parse_permission(bad), std::nullopt) << bad;
}

TEST(Permissions, OwnerAndOthers) {
  const Permissions permissions{{7, Access::kRead}, {8, Access::kWrite}, {9, Access::kNone}};
  EXPECT_EQ(access_of(permissions, 7), Access::kReadWrite);
  EXPECT_EQ(access_of(permissions, 8), Access::kWrite);
  EXPECT_EQ(access_of(permissions, 9), Access::kNone);
  EXPECT_EQ(access_of(permissions, 10), Access::kRead);
  EXPECT_EQ(access_of(permissions, kDomainZero), Access::kReadWrite);
}

}  // namespace
}  // namespace bulkhead::device::xenbus::store
