// What a domain may read and change, directly; limits. Transactions and watches have tests of their own.
#include "device/xenbus/store/session.h"

#include "device/xenbus/store/fixture.h"

namespace bulkhead::device::xenbus::store {
namespace {

using SessionTest = StoreTest;

TEST_F(SessionTest, WritesAndReadsItsData) {
  EXPECT_TRUE(guest->write(0, "data/a/b", "1"));
  EXPECT_EQ(guest->read(0, "data/a/b"), "1");
  EXPECT_EQ(zero->read(0, kHome + "/data/a/b"), "1");
  EXPECT_EQ(guest->read(0, "data/a"), "");
  EXPECT_EQ(guest->list(0, "data")->names, std::vector<std::string>{"a"});
  EXPECT_TRUE(guest->remove(0, "data/a"));
  EXPECT_EQ(error_of(guest->read(0, "data/a/b")), "ENOENT");
}

TEST_F(SessionTest, MakingADirectoryKeepsWhatIsThere) {
  EXPECT_TRUE(guest->write(0, "data/x", "value"));
  EXPECT_TRUE(guest->make_directory(0, "data/x"));
  EXPECT_EQ(guest->read(0, "data/x"), "value");
  EXPECT_TRUE(guest->make_directory(0, "data/y/z"));
  EXPECT_EQ(guest->read(0, "data/y/z"), "");
}

TEST_F(SessionTest, RemovingNeedsTheParent) {
  EXPECT_TRUE(guest->remove(0, "data/nothing"));
  EXPECT_EQ(error_of(guest->remove(0, "data/no/thing")), "ENOENT");
  EXPECT_EQ(error_of(guest->remove(0, "/")), "EINVAL");
  EXPECT_EQ(error_of(zero->remove(0, "/")), "EINVAL");
}

TEST_F(SessionTest, WhoMakesANodeOwnsIt) {
  ASSERT_TRUE(guest->write(0, "data/mine", ""));
  EXPECT_EQ(guest->permissions(0, "data/mine"), (Permissions{{kGuest, Access::kNone}}));
  ASSERT_TRUE(zero->write(0, kHome + "/data/theirs", ""));
  EXPECT_EQ(guest->permissions(0, "data/theirs"), (Permissions{{kGuest, Access::kNone}}));
}

TEST_F(SessionTest, OthersEntriesAreInherited) {
  ASSERT_TRUE(guest->set_permissions(0, "data", {{kGuest, Access::kNone}, {kOther, Access::kReadWrite}}));
  ASSERT_TRUE(other->write(0, kHome + "/data/from-other", "x"));
  EXPECT_EQ(other->permissions(0, kHome + "/data/from-other"),
            (Permissions{{kOther, Access::kNone}, {kOther, Access::kReadWrite}}));
  EXPECT_EQ(error_of(guest->read(0, "data/from-other")), "EACCES");
}

TEST_F(SessionTest, ForeignNodesAreNeitherReadNorWrittenNorKnown) {
  const std::string theirs = "/local/domain/8";
  for (const char* path : {"/name", "/data", "/data/nothing", "/nothing", "/device/suspend/event-channel"}) {
    EXPECT_EQ(error_of(guest->read(0, theirs + path)), "EACCES") << path;
    EXPECT_EQ(error_of(guest->write(0, theirs + path, "")), "EACCES") << path;
    EXPECT_EQ(error_of(guest->list(0, theirs + path)), "EACCES") << path;
    EXPECT_EQ(error_of(guest->remove(0, theirs + path)), "EACCES") << path;
    EXPECT_EQ(error_of(guest->permissions(0, theirs + path)), "EACCES") << path;
    EXPECT_EQ(error_of(guest->set_permissions(0, theirs + path, {{kGuest, Access::kReadWrite}})), "EACCES") << path;
  }
  EXPECT_EQ(error_of(guest->list(0, "/")), "EACCES");
  EXPECT_EQ(error_of(guest->read(0, "/libxl/7/type")), "EACCES");
  EXPECT_EQ(error_of(guest->read(0, "@releaseDomain")), "EACCES");
}

TEST_F(SessionTest, ReadOnlyNodesStayAsTheyAre) {
  for (const char* path :
       {"name", "memory/target", "cpu/0/availability", "control/platform-feature-xs_reset_watches"}) {
    EXPECT_TRUE(guest->read(0, path)) << path;
    EXPECT_EQ(error_of(guest->write(0, path, "x")), "EACCES") << path;
    EXPECT_EQ(error_of(guest->remove(0, path)), "EACCES") << path;
    EXPECT_EQ(error_of(guest->make_directory(0, std::string{path} + "/x")), "EACCES") << path;
    EXPECT_EQ(error_of(guest->set_permissions(0, path, {{kGuest, Access::kNone}})), "EACCES") << path;
  }
  EXPECT_EQ(error_of(guest->read(0, "name/nothing")), "ENOENT");
  EXPECT_EQ(error_of(guest->remove(0, kHome)), "EACCES");
}

TEST_F(SessionTest, OwnershipIsNotGivenAwayNorTaken) {
  ASSERT_TRUE(guest->write(0, "data/x", ""));
  EXPECT_EQ(error_of(guest->set_permissions(0, "data/x", {{kOther, Access::kNone}})), "EPERM");
  EXPECT_EQ(error_of(guest->set_permissions(0, "data/x", {{kDomainZero, Access::kNone}})), "EPERM");
  ASSERT_TRUE(guest->set_permissions(0, "data/x", {{kGuest, Access::kNone}, {kOther, Access::kReadWrite}}));
  EXPECT_EQ(error_of(other->set_permissions(0, kHome + "/data/x", {{kOther, Access::kNone}})), "EACCES");
  EXPECT_EQ(error_of(guest->set_permissions(0, "data/x", {})), "EINVAL");
}

TEST_F(SessionTest, WriteOnlyIsWriteOnly) {
  ASSERT_TRUE(guest->set_permissions(0, "data", {{kGuest, Access::kWrite}}));
  EXPECT_TRUE(other->write(0, kHome + "/data", "dropped"));
  EXPECT_EQ(error_of(other->read(0, kHome + "/data")), "EACCES");
}

TEST_F(SessionTest, ValuesAndPermissionListsAreLimited) {
  EXPECT_TRUE(guest->write(0, "data/x", std::string(2048, 'v')));
  EXPECT_EQ(error_of(guest->write(0, "data/x", std::string(2049, 'v'))), "ENOSPC");
  EXPECT_TRUE(guest->set_permissions(0, "data/x", Permissions(5, {kGuest, Access::kNone})));
  EXPECT_EQ(error_of(guest->set_permissions(0, "data/x", Permissions(6, {kGuest, Access::kNone}))), "ENOSPC");
  EXPECT_TRUE(zero->write(0, "/big", std::string(4000, 'v')));
}

TEST_F(SessionTest, NodesAreLimitedAndCountedBack) {
  const i64 before = store.usage(kGuest).nodes;
  unsigned made = 0;
  while (made < 2000 && guest->write(0, "data/n" + std::to_string(made), "")) ++made;
  EXPECT_EQ(static_cast<i64>(made) + before, 1000);
  EXPECT_EQ(error_of(guest->make_directory(0, "data/one-more")), "ENOSPC");
  EXPECT_TRUE(guest->write(0, "data/n0", "still"));  // what is there can be changed
  EXPECT_TRUE(other->write(0, "data/x", ""));        // and others are not held responsible
  for (unsigned i = 0; i < made; ++i) ASSERT_TRUE(guest->remove(0, "data/n" + std::to_string(i)));
  EXPECT_EQ(store.usage(kGuest).nodes, before);
  EXPECT_TRUE(guest->make_directory(0, "data/one-more"));
}

TEST_F(SessionTest, OneDeepPathIsManyNodes) {
  std::string path = "data";
  for (int i = 0; i < 1000; ++i) path += "/d";
  EXPECT_EQ(error_of(guest->write(0, path, "")), "ENOSPC");
  EXPECT_EQ(error_of(guest->read(0, "data/d")), "ENOENT");  // not half of it
}

TEST_F(SessionTest, MemoryIsLimited) {
  unsigned made = 0;
  while (made < 2000 &&
         guest->write(0, "data/" + std::string(1900, 'n') + std::to_string(made), std::string(2048, 'v')))
    ++made;
  EXPECT_GT(made, 500u);
  EXPECT_LT(made, 900u);
  EXPECT_LE(store.usage(kGuest).bytes, static_cast<i64>(Limits{}.memory_bytes));
}

TEST_F(SessionTest, RemovingATreeCountsBackItsOwners) {
  ASSERT_TRUE(guest->set_permissions(0, "data", {{kGuest, Access::kReadWrite}}));
  const i64 before = store.usage(kOther).nodes;
  ASSERT_TRUE(other->write(0, kHome + "/data/a/b/c", "x"));
  EXPECT_EQ(store.usage(kOther).nodes, before + 3);
  ASSERT_TRUE(guest->remove(0, "data"));
  EXPECT_EQ(store.usage(kOther).nodes, before);
}

}  // namespace
}  // namespace bulkhead::device::xenbus::store
