#include "net/user/stream_queue.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "base/big_endian.h"

namespace bulkhead::net {
namespace {

class StreamTest : public ::testing::Test {
 protected:
  StreamTest() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    peer = UniqueFd{ends[1]};
    queue.emplace(UniqueFd{ends[0]});
  }
  static std::string framed(const std::string& frame) {
    std::byte length[4];
    store_be<u32>(length, static_cast<u32>(frame.size()));
    return std::string(reinterpret_cast<const char*>(length), 4) + frame;
  }
  void say(std::string_view bytes) {
    ASSERT_EQ(::send(peer.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  // What comes out, or the word for what does not.
  std::string receive() {
    FrameHeader header;
    std::span<std::byte> frame;
    const Received what = queue->receive(header, frame);
    if (what != Received::kFrame) return what == Received::kGone ? "gone" : "nothing";
    return {reinterpret_cast<const char*>(frame.data()), frame.size()};
  }
  Sent send(std::string text) {
    const IoBuffer pieces[2] = {{reinterpret_cast<std::byte*>(text.data()), 1},
                                {reinterpret_cast<std::byte*>(text.data()) + 1, text.size() - 1}};
    return queue->send({}, pieces);
  }
  UniqueFd peer;
  std::optional<StreamQueue> queue;
};

TEST_F(StreamTest, FramesArriveWholeHoweverTheyAreCut) {
  const std::string stream = framed("first") + framed("") + framed(std::string(3000, 'x'));
  for (std::size_t cut = 1; cut < 40; ++cut) {
    std::vector<std::string> got;
    for (std::size_t at = 0; at < stream.size(); at += cut * 7) {
      say(std::string_view{stream}.substr(at, cut * 7));
      for (std::string one = receive(); one != "nothing"; one = receive()) got.push_back(one);
    }
    EXPECT_EQ(got, (std::vector<std::string>{"first", "", std::string(3000, 'x')})) << cut;
  }
}

TEST_F(StreamTest, LargestFramesGoRoundTheBuffer) {
  for (int i = 0; i < 40; ++i) {
    const std::string frame(kMaxFrame - static_cast<u32>(i) * 1000, static_cast<char>('a' + i % 26));
    say(framed(frame));
    ASSERT_EQ(receive(), frame);
  }
}

TEST_F(StreamTest, ALengthThatCannotBeEndsIt) {
  say(std::string("\xff\xff\xff\xff rubbish", 12));
  EXPECT_EQ(receive(), "gone");
  EXPECT_EQ(receive(), "gone");
}

TEST_F(StreamTest, APeerThatGoesIsNoticedBothWays) {
  say(framed("last"));
  peer.reset();
  EXPECT_EQ(receive(), "last");
  EXPECT_EQ(receive(), "gone");
  EXPECT_EQ(send("x1"), Sent::kGone);
}

TEST_F(StreamTest, AFullSocketHoldsAtMostTheRestOfOneFrame) {
  const std::string frame(60000, 'y');
  unsigned done = 0;
  Sent last;
  while ((last = send(frame)) == Sent::kDone && done < 1000) ++done;
  ASSERT_EQ(last, Sent::kFull);
  ASSERT_GT(done, 0u);
  std::string read;
  std::vector<char> buffer(1 << 20);
  while (read.size() < done * (frame.size() + 4)) {
    const ssize_t got = ::recv(peer.get(), buffer.data(), buffer.size(), 0);
    if (got > 0) read.append(buffer.data(), static_cast<std::size_t>(got));
    queue->flush();
  }
  EXPECT_FALSE(queue->unflushed());
  for (unsigned i = 0; i < done; ++i) EXPECT_EQ(read.substr(i * (frame.size() + 4), frame.size() + 4), framed(frame));
  EXPECT_EQ(send("more"), Sent::kDone);
}

}  // namespace
}  // namespace bulkhead::net
