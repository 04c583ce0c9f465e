#include "zone/session/host_stream.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <string>
#include <vector>

namespace bulkhead::zone {
namespace {

using Direction = HostStream::Direction;

struct Pair {
  UniqueFd read, write;
};
Pair make_pipe() {
  int fds[2];
  EXPECT_EQ(::pipe(fds), 0);
  return {UniqueFd{fds[0]}, UniqueFd{fds[1]}};
}

TEST(HostStream, FullPipeSaysNotNowAndTheSharedModeIsKept) {
  const Pair pipe = make_pipe();
  HostStream out{pipe.write.get(), Direction::kOutput};
  const std::string data(100'000, 'x');
  std::size_t total = 0, size;
  while ((size = out.write(data)) > 0) total += size;
  EXPECT_GE(total, 4096u);
  EXPECT_TRUE(out.open());
  EXPECT_EQ(::fcntl(pipe.write.get(), F_GETFL) & O_NONBLOCK, 0);
}

TEST(HostStream, BrokenPipeCloses) {
  ::signal(SIGPIPE, SIG_IGN);
  Pair pipe = make_pipe();
  HostStream out{pipe.write.get(), Direction::kOutput};
  pipe.read.reset();
  EXPECT_EQ(out.write("x"), 0u);
  EXPECT_FALSE(out.open());
  EXPECT_EQ(out.poll_fd(), -1);
}

TEST(HostStream, EmptyPipeSaysNotNowAndItsEndIsTheEnd) {
  Pair pipe = make_pipe();
  HostStream in{pipe.read.get(), Direction::kInput};
  std::byte buffer[16];
  EXPECT_EQ(in.read(buffer), 0u);
  EXPECT_TRUE(in.open());
  EXPECT_EQ(::write(pipe.write.get(), "abc", 3), 3);
  EXPECT_EQ(in.read(buffer), 3u);
  pipe.write.reset();
  EXPECT_EQ(in.read(buffer), 0u);
  EXPECT_FALSE(in.open());
}

TEST(HostStream, RegularFilesKeepTheirOffset) {
  char path[] = "/tmp/bulkhead-stream-XXXXXX";
  UniqueFd file{::mkstemp(path)};
  ::unlink(path);
  EXPECT_EQ(::write(file.get(), "abc", 3), 3);
  HostStream out{file.get(), Direction::kOutput};
  EXPECT_TRUE(out.always_ready());
  EXPECT_EQ(out.write("def"), 3u);
  char text[7] = {};
  EXPECT_EQ(::pread(file.get(), text, 6, 0), 6);
  EXPECT_STREQ(text, "abcdef");
}

TEST(HostStream, SocketsDoNotBlock) {
  int fds[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  UniqueFd ours{fds[0]}, theirs{fds[1]};
  HostStream out{ours.get(), Direction::kOutput}, in{ours.get(), Direction::kInput};
  std::byte buffer[16];
  EXPECT_EQ(in.read(buffer), 0u);
  EXPECT_TRUE(in.open());
  while (out.write(std::string(100'000, 'x')) > 0) {
  }
  EXPECT_TRUE(out.open());
}

TEST(HostStream, ClosedDescriptorIsAClosedStream) {
  HostStream stream{987654, Direction::kInput};
  EXPECT_FALSE(stream.open());
  std::byte buffer[1];
  EXPECT_EQ(stream.read(buffer), 0u);
}

}  // namespace
}  // namespace bulkhead::zone
