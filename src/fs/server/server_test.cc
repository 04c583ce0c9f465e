#include "fs/server/server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <algorithm>
#include <set>
#include <thread>

#include "fs/testing/fuse_client.h"

namespace bulkhead::fs {
namespace {

using namespace test;

class ServerTest : public ::testing::Test {
 protected:
  ServerTest() {
    host.put("a", "hello");
    std::filesystem::create_directory(host.path / "sub");
    outside.put("secret", "not for you");
    server.emplace(shares(), config, counts);
    client.emplace(*server);
    EXPECT_EQ(client->init().error, 0);
    top = client->node(FUSE_ROOT_ID, "rw");
    read_only_top = client->node(FUSE_ROOT_ID, "ro");
  }
  std::vector<Share> shares() {
    std::vector<Share> out;
    const auto add = [&](const char* name, const std::filesystem::path& path, bool read_only) {
      out.push_back({name, UniqueFd{::open(path.c_str(), O_PATH | O_CLOEXEC)}, read_only});
    };
    add("rw", host.path, false);
    add("ro", host.path, true);
    add("file", host.path / "a", false);
    return out;
  }
  u64 count(Count which) const { return counts.value(which); }

  Folder host, outside;
  Counts counts;
  ServerConfig config;
  std::optional<Server> server;
  std::optional<FuseClient> client;
  u64 top = 0, read_only_top = 0;
};

TEST_F(ServerTest, InitAgreesOnWhatBothKnow) {
  const auto out = client->init().as<fuse_init_out>();
  EXPECT_EQ(out.major, 7u);
  EXPECT_EQ(out.max_write, kMaxData);
  EXPECT_EQ(out.max_pages, 256u);
  EXPECT_TRUE(out.flags & FUSE_HANDLE_KILLPRIV_V2);
  EXPECT_FALSE(out.flags & (FUSE_POSIX_LOCKS | FUSE_WRITEBACK_CACHE | FUSE_EXPORT_SUPPORT));
  EXPECT_EQ(client->init(38, FUSE_MAX_PAGES).as<fuse_init_out>().flags, u32{FUSE_MAX_PAGES});
  EXPECT_EQ(client->init(12).error, EPROTO);
}

TEST_F(ServerTest, SharesAreInTheRoot) {
  for (const bool plus : {false, true}) {
    std::set<std::string> names;
    for (const auto& entry : client->list(FUSE_ROOT_ID, 4096, plus)) names.insert(entry.name);
    EXPECT_EQ(names, (std::set<std::string>{"rw", "ro", "file"}));
  }
  EXPECT_EQ(client->lookup(FUSE_ROOT_ID, "rwx").error, ENOENT);
  EXPECT_EQ(client->create(FUSE_ROOT_ID, "new").error, EROFS);
  const u64 file = client->node(FUSE_ROOT_ID, "file");
  const u64 handle = client->open(file, O_RDONLY).as<fuse_open_out>().fh;
  EXPECT_EQ(client->read(file, handle, 0, 100).string(), "hello");
}

TEST_F(ServerTest, FilesAreMadeWrittenAndRead) {
  const Answer made = client->create(top, "new", 0640);
  ASSERT_EQ(made.error, 0);
  const auto entry = made.as<fuse_entry_out>();
  const u64 handle = FuseClient::created_handle(made);
  const std::string data(300'000, 'x');
  EXPECT_EQ(client->write(entry.nodeid, handle, 10, data).as<fuse_write_out>().size, data.size());
  EXPECT_EQ(client->read(entry.nodeid, handle, 10, kMaxData).string(), data);
  EXPECT_EQ(client->read(entry.nodeid, handle, 0, 10).string(), std::string(10, '\0'));
  EXPECT_EQ(client->release(entry.nodeid, handle).error, 0);
  struct stat status{};
  ASSERT_EQ(::stat((host.path / "new").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0640u);
  EXPECT_EQ(status.st_size, 300'010);
  EXPECT_EQ(client->create(top, "new", 0644, O_RDWR | O_CREAT | O_EXCL).error, EEXIST);
  const Answer again = client->create(top, "new", 0644, O_RDWR | O_CREAT | O_TRUNC);
  EXPECT_EQ(again.as<fuse_entry_out>().nodeid, entry.nodeid);
  EXPECT_EQ(host.get("new"), "");
}

TEST_F(ServerTest, AppendingHandlesWriteWhereTheGuestSays) {
  const u64 file = client->node(top, "a");
  const u64 handle = client->open(file, O_WRONLY | O_APPEND).as<fuse_open_out>().fh;
  EXPECT_EQ(client->write(file, handle, 0, "J").error, 0);
  EXPECT_EQ(host.get("a"), "Jello");
}

TEST_F(ServerTest, FoldersInSmallPieces) {
  std::set<std::string> wanted = {".", "..", "a", "sub"};
  for (int i = 0; i < 200; ++i) {
    host.put("file-" + std::to_string(i), "");
    wanted.insert("file-" + std::to_string(i));
  }
  for (const bool plus : {false, true}) {
    for (const u32 size : {300u, 4096u, kMaxData}) {
      std::set<std::string> names;
      for (const auto& entry : client->list(top, size, plus)) {
        EXPECT_TRUE(names.insert(entry.name).second) << entry.name << " twice";
        EXPECT_EQ(entry.node != 0, plus && entry.name != "." && entry.name != "..") << entry.name;
      }
      EXPECT_EQ(names, wanted) << size;
    }
  }
}

TEST_F(ServerTest, NodesAreTheSameByEveryName) {
  const u64 file = client->node(top, "a");
  ASSERT_EQ(client->ask(FUSE_LINK, top, bytes_of(fuse_link_in{file}) + text("b")).as<fuse_entry_out>().nodeid, file);
  EXPECT_EQ(client->node(top, "b"), file);
  EXPECT_EQ(client->lookup(top, "b").as<fuse_entry_out>().attr.nlink, 2u);
  EXPECT_NE(client->node(read_only_top, "a"), file) << "another share, another node";
  EXPECT_EQ(client->node(FUSE_ROOT_ID, "rw"), top);
}

TEST_F(ServerTest, LinksRenamesAndRemovals) {
  EXPECT_EQ(client->ask(FUSE_SYMLINK, top, text("link") + text("../any/where")).error, 0);
  EXPECT_EQ(client->ask(FUSE_READLINK, client->node(top, "link")).string(), "../any/where");
  EXPECT_EQ(client->ask(FUSE_MKDIR, top, bytes_of(fuse_mkdir_in{0750, 0}) + text("dir")).error, 0);
  const u64 dir = client->node(top, "dir");
  EXPECT_EQ(client->ask(FUSE_RENAME, top, bytes_of(fuse_rename_in{dir}) + text("a") + text("moved")).error, 0);
  EXPECT_EQ(host.get("dir/moved"), "hello");
  EXPECT_EQ(client->ask(FUSE_RMDIR, top, text("dir")).error, ENOTEMPTY);
  const auto rename2 = [&](u32 flags) {
    return client->ask(FUSE_RENAME2, dir, bytes_of(fuse_rename2_in{top, flags, 0}) + text("moved") + text("link"))
        .error;
  };
  EXPECT_EQ(rename2(RENAME_NOREPLACE), EEXIST);
  EXPECT_EQ(rename2(RENAME_EXCHANGE), 0);
  EXPECT_EQ(host.get("link"), "hello");
  EXPECT_EQ(client->ask(FUSE_UNLINK, dir, text("moved")).error, 0);
  EXPECT_EQ(client->ask(FUSE_RMDIR, top, text("dir")).error, 0);
}

TEST_F(ServerTest, AnOpenFileWithoutANameGoesOn) {
  const u64 file = client->node(top, "a");
  const u64 handle = client->open(file, O_RDWR).as<fuse_open_out>().fh;
  EXPECT_EQ(client->ask(FUSE_UNLINK, top, text("a")).error, 0);
  EXPECT_EQ(client->write(file, handle, 5, " there").error, 0);
  EXPECT_EQ(client->read(file, handle, 0, 100).string(), "hello there");
  EXPECT_EQ(client->ask(FUSE_GETATTR, file, bytes_of(fuse_getattr_in{})).as<fuse_attr_out>().attr.nlink, 0u);
  EXPECT_EQ(client->release(file, handle).error, 0);
}

TEST_F(ServerTest, AttributesAreSet) {
  const u64 file = client->node(top, "a");
  fuse_setattr_in in{};
  in.valid = FATTR_MODE | FATTR_SIZE | FATTR_MTIME;
  in.mode = S_IFREG | 0400;
  in.size = 2;
  in.mtime = 1'000'000'000;
  in.mtimensec = 5;
  const auto out = client->ask(FUSE_SETATTR, file, bytes_of(in)).as<fuse_attr_out>().attr;
  EXPECT_EQ(out.mode, u32{S_IFREG | 0400});
  EXPECT_EQ(out.size, 2u);
  EXPECT_EQ(out.mtime, 1'000'000'000u);
  EXPECT_EQ(host.get("a"), "he");
  in.valid = ~0u;
  EXPECT_EQ(client->ask(FUSE_SETATTR, file, bytes_of(in)).error, EINVAL);
}

TEST_F(ServerTest, HolesCopiesAndAllocation) {
  const Answer made = client->create(top, "sparse");
  const u64 file = made.as<fuse_entry_out>().nodeid, handle = FuseClient::created_handle(made);
  EXPECT_EQ(client->write(file, handle, 1_MiB, "data").error, 0);
  fuse_lseek_in seek{};
  seek.fh = handle;
  seek.whence = SEEK_DATA;
  EXPECT_GT(client->ask(FUSE_LSEEK, file, bytes_of(seek)).as<fuse_lseek_out>().offset, 0u);
  seek.whence = SEEK_END;
  EXPECT_EQ(client->ask(FUSE_LSEEK, file, bytes_of(seek)).error, EINVAL);
  fuse_copy_file_range_in copy{};
  copy.fh_in = copy.fh_out = handle;
  copy.nodeid_out = file;
  copy.off_in = 1_MiB;
  copy.len = 4;
  EXPECT_EQ(client->ask(FUSE_COPY_FILE_RANGE, file, bytes_of(copy)).as<fuse_write_out>().size, 4u);
  EXPECT_EQ(client->read(file, handle, 0, 4).string(), "data");
  fuse_fallocate_in allocate{};
  allocate.fh = handle;
  allocate.offset = 2_MiB;
  allocate.length = 100;
  EXPECT_EQ(client->ask(FUSE_FALLOCATE, file, bytes_of(allocate)).error, 0);
  EXPECT_EQ(std::filesystem::file_size(host.path / "sparse"), 2_MiB + 100);
  allocate.mode = 0x40;  // FALLOC_FL_UNSHARE_RANGE
  EXPECT_EQ(client->ask(FUSE_FALLOCATE, file, bytes_of(allocate)).error, EOPNOTSUPP);
  allocate.length = ~u64{0};
  EXPECT_EQ(client->ask(FUSE_FALLOCATE, file, bytes_of(allocate)).error, EINVAL);
}

TEST_F(ServerTest, ExtendedAttributesOfUsersOnly) {
  const u64 file = client->node(top, "a");
  if (::setxattr((host.path / "a").c_str(), "user.host", "1", 1, 0) != 0)
    GTEST_SKIP() << "the file system of " << host.path << " has no extended attributes";
  const auto set = [&](std::string_view name, std::string_view value, u32 size) {
    return client->ask(FUSE_SETXATTR, file, bytes_of(u64{size}) + text(name) + raw(value))
        .error;  // size and flags, 32 bits each
  };
  EXPECT_EQ(set("user.mine", "value", 5), 0);
  fuse_getxattr_in get{};
  EXPECT_EQ(client->ask(FUSE_GETXATTR, file, bytes_of(get) + text("user.mine")).as<fuse_getxattr_out>().size, 5u);
  get.size = 100;
  EXPECT_EQ(client->ask(FUSE_GETXATTR, file, bytes_of(get) + text("user.mine")).string(), "value");
  EXPECT_EQ(client->ask(FUSE_LISTXATTR, file, bytes_of(get)).payload.size(), 20u);
  get.size = 3;
  EXPECT_EQ(client->ask(FUSE_LISTXATTR, file, bytes_of(get)).error, ERANGE);
  EXPECT_EQ(client->ask(FUSE_REMOVEXATTR, file, text("user.mine")).error, 0);
  for (const char* const name : {"trusted.overlay.opaque", "security.selinux", "system.posix_acl_access", "user."})
    EXPECT_EQ(set(name, "x", 1), EOPNOTSUPP) << name;
  EXPECT_EQ(set("user.mine", "value", 500), EINVAL) << "a value shorter than it says";
  EXPECT_EQ(count(Count::kForbidden), 4u);
}

TEST_F(ServerTest, ReadOnlySharesStayAsTheyAre) {
  const u64 file = client->node(read_only_top, "a");
  EXPECT_EQ(client->open(file, O_WRONLY).error, EROFS);
  EXPECT_EQ(client->open(file, O_RDONLY | O_TRUNC).error, EROFS);
  EXPECT_EQ(client->create(read_only_top, "new").error, EROFS);
  EXPECT_EQ(client->ask(FUSE_UNLINK, read_only_top, text("a")).error, EROFS);
  EXPECT_EQ(client->ask(FUSE_MKDIR, client->node(read_only_top, "sub"), bytes_of(fuse_mkdir_in{}) + text("x")).error,
            EROFS);
  fuse_setattr_in in{};
  in.valid = FATTR_SIZE;
  EXPECT_EQ(client->ask(FUSE_SETATTR, file, bytes_of(in)).error, EROFS);
  EXPECT_EQ(client->ask(FUSE_RENAME, read_only_top, bytes_of(fuse_rename_in{top}) + text("a") + text("b")).error,
            EROFS);
  EXPECT_EQ(client->ask(FUSE_LINK, top, bytes_of(fuse_link_in{file}) + text("b")).error, EXDEV)
      << "a link in a share that may be written would undo it";
  const u64 handle = client->open(file, O_RDONLY).as<fuse_open_out>().fh;
  EXPECT_EQ(client->read(file, handle, 0, 9).string(), "hello");
  EXPECT_NE(client->write(file, handle, 0, "x").error, 0);
  EXPECT_EQ(host.get("a"), "hello");
  EXPECT_GT(count(Count::kReadOnly), 5u);
}

TEST_F(ServerTest, ManyThreadsAtOnce) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([this, t] {
      FuseClient own{*server};
      for (int i = 0; i < 200; ++i) {
        const std::string name = "t" + std::to_string(t);
        const Answer made = own.create(top, name);
        const u64 file = made.as<fuse_entry_out>().nodeid;
        own.write(file, FuseClient::created_handle(made), 0, name);
        own.list(top, 4096, true);
        own.release(file, FuseClient::created_handle(made));
        own.ask(FUSE_UNLINK, top, text(name));
        own.forget(file, 1);
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(count(Count::kHandles), 0u);
  EXPECT_EQ(count(Count::kForgetOverflows), 0u);
}

// Bad guests.

TEST_F(ServerTest, NamesThatAreNone) {
  host.put("sub/x", "");
  std::filesystem::create_symlink(outside.path, host.path / "out");
  const u64 sub = client->node(top, "sub");
  for (const std::string& name :
       {std::string{".."}, std::string{"."}, std::string{}, std::string{"sub/x"},
        "../" + outside.path.filename().string(), std::string{"/etc/passwd"}, std::string(256, 'n')}) {
    EXPECT_NE(client->lookup(sub, name).error, 0) << name;
    EXPECT_NE(client->create(sub, name).error, 0) << name;
    EXPECT_NE(client->ask(FUSE_UNLINK, sub, text(name)).error, 0) << name;
    EXPECT_NE(client->ask(FUSE_MKDIR, sub, bytes_of(fuse_mkdir_in{0755, 0}) + text(name)).error, 0) << name;
    EXPECT_NE(client->ask(FUSE_SYMLINK, sub, text(name) + text("x")).error, 0) << name;
    EXPECT_NE(client->ask(FUSE_RENAME, sub, bytes_of(fuse_rename_in{sub}) + text("x") + text(name)).error, 0) << name;
    EXPECT_NE(client->ask(FUSE_LINK, sub, bytes_of(fuse_link_in{client->node(top, "a")}) + text(name)).error, 0);
  }
  EXPECT_EQ(count(Count::kBadNames), 7u * 7u);
  EXPECT_EQ(client->lookup(sub, std::string_view{"x\0y", 3}).error, EINVAL) << "bytes behind the name";
}

TEST_F(ServerTest, NoWayOutByLinks) {
  std::filesystem::create_directory_symlink(outside.path, host.path / "out");
  std::filesystem::create_symlink(outside.path / "secret", host.path / "leak");
  const u64 out = client->node(top, "out"), leak = client->node(top, "leak");
  EXPECT_EQ(client->lookup(out, "secret").error, ENOTDIR);
  EXPECT_EQ(client->open(out, O_RDONLY, FUSE_OPENDIR).error, ENOTDIR);
  EXPECT_NE(client->open(leak, O_RDONLY).error, 0);
  EXPECT_NE(client->create(top, "leak", 0644, O_RDWR | O_CREAT | O_TRUNC).error, 0);
  fuse_setattr_in in{};
  in.valid = FATTR_SIZE;
  EXPECT_NE(client->ask(FUSE_SETATTR, leak, bytes_of(in)).error, 0);
  in.valid = FATTR_MODE;
  in.mode = 0777;
  client->ask(FUSE_SETATTR, leak, bytes_of(in));
  EXPECT_EQ(outside.get("secret"), "not for you");
  struct stat status{};
  ::stat((outside.path / "secret").c_str(), &status);
  EXPECT_NE(status.st_mode & 0777, 0777u);
}

// A folder that becomes a link while names below it are looked up: the node stays the folder that it was.
TEST_F(ServerTest, NoWayOutByRaces) {
  std::filesystem::create_directory(host.path / "flip");
  host.put("flip/secret", "inside");
  std::filesystem::create_directory_symlink(outside.path, host.path / "flop");
  std::atomic<bool> stop{false};
  std::thread swap{[&] {
    while (!stop)
      ::renameat2(AT_FDCWD, (host.path / "flip").c_str(), AT_FDCWD, (host.path / "flop").c_str(), RENAME_EXCHANGE);
  }};
  int read = 0;
  for (int i = 0; i < 3000; ++i) {
    const u64 folder = client->node(top, "flip");
    const u64 file = client->node(folder, "secret");
    if (file != 0) {
      const u64 handle = client->open(file, O_RDONLY).as<fuse_open_out>().fh;
      EXPECT_EQ(client->read(file, handle, 0, 100).string(), "inside");
      client->release(file, handle);
      client->forget(file, 1);
      ++read;
    }
    if (folder != 0) client->forget(folder, 1);
  }
  stop = true;
  swap.join();
  EXPECT_GT(read, 0);
}

TEST_F(ServerTest, PipesAndDevicesAreNotOpened) {
  const auto mknod = [&](const char* name, mode_t mode) {
    fuse_mknod_in in{};
    in.mode = mode | 0644;
    in.rdev = 0x103;
    return client->ask(FUSE_MKNOD, top, bytes_of(in) + text(name)).error;
  };
  EXPECT_EQ(mknod("pipe", S_IFIFO), 0);
  EXPECT_EQ(mknod("socket", S_IFSOCK), 0);
  EXPECT_EQ(mknod("file", S_IFREG), 0);
  EXPECT_EQ(mknod("char", S_IFCHR), EPERM);
  EXPECT_EQ(mknod("block", S_IFBLK), EPERM);
  EXPECT_EQ(client->open(client->node(top, "pipe"), O_RDONLY).error, ENXIO);
  EXPECT_EQ(client->create(top, "pipe", 0644, O_WRONLY | O_CREAT).error, EINVAL);
  EXPECT_EQ(
      client->ask(FUSE_RENAME2, top, bytes_of(fuse_rename2_in{top, RENAME_WHITEOUT, 0}) + text("a") + text("b")).error,
      EINVAL);
  EXPECT_EQ(host.get("a"), "hello");
}

TEST_F(ServerTest, NumbersThatWereNotGivenOut) {
  const u64 file = client->node(top, "a");
  for (const u64 node : {u64{0}, u64{77777}, ~u64{0}, file + 1000}) {
    EXPECT_EQ(client->lookup(node, "a").error, ESTALE);
    EXPECT_EQ(client->open(node, O_RDONLY).error, ESTALE);
    EXPECT_EQ(client->ask(FUSE_GETATTR, node, bytes_of(fuse_getattr_in{})).error, ESTALE);
    EXPECT_EQ(client->ask(FUSE_LINK, top, bytes_of(fuse_link_in{node}) + text("b")).error, ESTALE);
    EXPECT_EQ(client->ask(FUSE_RENAME, top, bytes_of(fuse_rename_in{node}) + text("a") + text("b")).error, ESTALE);
    client->forget(node, 1);
  }
  EXPECT_EQ(count(Count::kUnknownNodes), 4u * 6);
  const u64 handle = client->open(file, O_RDWR).as<fuse_open_out>().fh;
  const u64 other = client->node(top, "sub");
  for (const u64 forged : {u64{0}, handle + 1, ~u64{0}}) {
    EXPECT_EQ(client->read(file, forged, 0, 10).error, EBADF);
    EXPECT_EQ(client->write(file, forged, 0, "x").error, EBADF);
    EXPECT_EQ(client->release(file, forged).error, EBADF);
  }
  EXPECT_EQ(client->read(other, handle, 0, 10).error, EBADF) << "another node's handle";
  EXPECT_EQ(client->read(file, handle, 0, 10, FUSE_READDIR).error, EBADF) << "a file's handle as a folder's";
  EXPECT_EQ(client->release(file, handle).error, 0);
  EXPECT_EQ(client->release(file, handle).error, EBADF) << "twice";
}

TEST_F(ServerTest, ForgettingMoreThanWasLookedUp) {
  const u64 file = client->node(top, "a");
  client->node(top, "a");
  client->forget(file, 1);
  EXPECT_EQ(client->open(file, O_RDONLY).error, 0) << "still known once";
  client->forget(file, ~u64{0});
  EXPECT_EQ(count(Count::kForgetOverflows), 1u);
  EXPECT_EQ(client->open(file, O_RDONLY).error, ESTALE);
  EXPECT_NE(client->node(top, "a"), file) << "numbers are not used twice";
  client->forget(FUSE_ROOT_ID, 1000);
  EXPECT_EQ(client->lookup(FUSE_ROOT_ID, "rw").error, 0);
  EXPECT_TRUE(client->ask(FUSE_BATCH_FORGET, 0, bytes_of(fuse_batch_forget_in{0xffffffff, 0})).none);
  EXPECT_TRUE(
      client->ask(FUSE_BATCH_FORGET, 0, bytes_of(fuse_batch_forget_in{1, 0}) + bytes_of(fuse_forget_one{top, 100}))
          .none);
  EXPECT_EQ(count(Count::kMalformed), 1u);
  EXPECT_EQ(client->lookup(top, "a").error, ESTALE);
}

TEST_F(ServerTest, MessagesTooShortTooLongAndWrong) {
  for (std::size_t size = 0; size < 40; ++size) EXPECT_EQ(client->send(Bytes(size)).error, EINVAL);
  fuse_in_header header{};
  header.len = 100;
  header.opcode = FUSE_GETATTR;
  EXPECT_EQ(client->send(bytes_of(header)).error, EINVAL) << "not as long as it says";
  for (u32 opcode = 0; opcode < 80; ++opcode) {
    if (opcode == FUSE_INIT || opcode == FUSE_DESTROY) continue;
    for (const std::size_t size : {0u, 1u, 7u, 15u, 31u}) client->ask(opcode, top, Bytes(size, std::byte{0xff}));
  }
  EXPECT_EQ(client->ask(4711, top).error, ENOSYS);
  EXPECT_EQ(client->ask(FUSE_IOCTL, top).error, ENOSYS);
  EXPECT_TRUE(client->ask(FUSE_INTERRUPT, 0).none);
  EXPECT_EQ(client->ask(FUSE_INIT, 0, Bytes(8)).error, EINVAL);
  EXPECT_EQ(client->lookup(top, "a").error, 0) << "and it goes on";
  EXPECT_EQ(host.get("a"), "hello");
}

TEST_F(ServerTest, SizesAndOffsetsBeyondReason) {
  const u64 file = client->node(top, "a");
  const u64 handle = client->open(file, O_RDWR).as<fuse_open_out>().fh;
  EXPECT_EQ(client->read(file, handle, 0, kMaxData + 1).error, EINVAL);
  EXPECT_EQ(client->read(file, handle, 0, ~0u).error, EINVAL);
  EXPECT_EQ(client->read(file, handle, ~u64{0}, 10).error, EINVAL);
  EXPECT_EQ(client->read(file, handle, static_cast<u64>(INT64_MAX), 10).error, EINVAL);
  EXPECT_EQ(client->write(file, handle, ~u64{0}, "x").error, EINVAL);
  fuse_write_in in{};
  in.fh = handle;
  in.size = 1000;
  EXPECT_EQ(client->ask(FUSE_WRITE, file, bytes_of(in) + raw("short")).error, EINVAL);
  EXPECT_EQ(client->read(top, client->open(top, 0, FUSE_OPENDIR).as<fuse_open_out>().fh, 0, ~0u, FUSE_READDIR).error,
            EINVAL);
  const u64 folder = client->open(top, 0, FUSE_OPENDIR).as<fuse_open_out>().fh;
  EXPECT_EQ(client->read(top, folder, 0, 10, FUSE_READDIR).payload.size(), 0u) << "no entry fits";
  client->read(top, folder, ~u64{0}, 4096, FUSE_READDIR);
  fuse_setattr_in grow{};
  grow.valid = FATTR_SIZE;
  grow.size = ~u64{0};
  EXPECT_EQ(client->ask(FUSE_SETATTR, file, bytes_of(grow)).error, EFBIG);
  EXPECT_EQ(host.get("a"), "hello");
}

TEST_F(ServerTest, NothingBeforeInit) {
  Server fresh{shares(), config, counts};
  FuseClient early{fresh};
  EXPECT_EQ(early.lookup(FUSE_ROOT_ID, "rw").error, EINVAL);
  EXPECT_EQ(early.init().error, 0);
  EXPECT_EQ(early.lookup(FUSE_ROOT_ID, "rw").error, 0);
  EXPECT_EQ(early.ask(FUSE_DESTROY, 0).error, 0);
  EXPECT_EQ(early.lookup(FUSE_ROOT_ID, "rw").error, EINVAL);
}

TEST_F(ServerTest, NodesAndHandlesAreBounded) {
  for (int i = 0; i < 50; ++i) host.put("f" + std::to_string(i), "");
  ServerConfig small = config;
  small.most_nodes = 10;
  small.most_handles = 5;
  Counts own;
  Server bounded{shares(), small, own};
  FuseClient guest{bounded};
  guest.init();
  const u64 folder = guest.node(FUSE_ROOT_ID, "rw");
  u64 last = 0;
  for (int i = 0; i < 50; ++i) {
    const Answer answer = guest.lookup(folder, "f" + std::to_string(i));
    EXPECT_EQ(answer.error, i < 9 ? 0 : ENFILE);
    if (answer.error == 0) last = answer.as<fuse_entry_out>().nodeid;
  }
  EXPECT_EQ(own.value(Count::kNodes), 10u);
  EXPECT_EQ(own.value(Count::kTooManyNodes), 41u);
  EXPECT_EQ(guest.list(folder, 4096, true).size(), 54u) << "what has no node is listed without";
  for (int i = 0; i < 20; ++i) EXPECT_EQ(guest.open(last, O_RDONLY).error, i < 5 ? 0 : ENFILE);
  guest.forget(last, 1000);
  EXPECT_EQ(guest.lookup(folder, "f40").error, 0);
}

// As root only: others cannot be who the guest says.
TEST_F(ServerTest, FilesBelongToTheCaller) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give files to others";
  config.switch_users = true;
  Server as_root{shares(), config, counts};
  FuseClient guest{as_root};
  guest.init();
  const u64 folder = guest.node(FUSE_ROOT_ID, "rw");
  guest.uid = 1234;
  guest.gid = 4321;
  const auto made = guest.create(folder, "theirs").as<fuse_entry_out>();
  EXPECT_EQ(made.attr.uid, 1234u);
  EXPECT_EQ(made.attr.gid, 4321u);
  EXPECT_EQ(guest.ask(FUSE_MKDIR, folder, bytes_of(fuse_mkdir_in{0755, 0}) + text("dir")).as<fuse_entry_out>().attr.uid,
            1234u);
  EXPECT_EQ(guest.ask(FUSE_SYMLINK, folder, text("link") + text("x")).as<fuse_entry_out>().attr.gid, 4321u);
  guest.uid = ~0u;
  EXPECT_EQ(guest.create(folder, "nobodys").error, EPERM);
  guest.uid = 0;
  guest.gid = 0;
  EXPECT_EQ(guest.create(folder, "roots").as<fuse_entry_out>().attr.uid, 0u) << "and we are root again";
  // A write by who may not keep it takes set-user-ID away.
  host.put("tool", "x");
  ::chmod((host.path / "tool").c_str(), 04755);
  const u64 tool = guest.node(folder, "tool");
  const u64 handle = guest.open(tool, O_RDWR).as<fuse_open_out>().fh;
  guest.write(tool, handle, 0, "y");
  EXPECT_EQ(guest.lookup(folder, "tool").as<fuse_entry_out>().attr.mode & 07777, 04755u);
  guest.write(tool, handle, 0, "z", FUSE_WRITE_KILL_SUIDGID);
  EXPECT_EQ(guest.lookup(folder, "tool").as<fuse_entry_out>().attr.mode & 07777, 0755u);
}

}  // namespace
}  // namespace bulkhead::fs
