#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include "container/ttrpc/connection.h"
#include "container/ttrpc/ttrpc.pb.h"

namespace bulkhead::ttrpc {
namespace {

using container::Loop;

std::string frame_of(u32 stream, FrameType type, const std::string& message) {
  std::string out;
  append_header(out, stream, type, message.size());
  return out + message;
}

TEST(FrameReader, ReadsWhatComesInPieces) {
  const std::string bytes = frame_of(1, FrameType::kRequest, "abc") + frame_of(3, FrameType::kRequest, "");
  FrameReader reader;
  std::vector<std::string> seen;
  for (const char byte : bytes)
    EXPECT_TRUE(reader.feed({&byte, 1}, [&](const Frame& frame) {
      seen.push_back(fmt::format("{} {} {}", frame.stream, frame.type, frame.message));
      return true;
    }));
  EXPECT_EQ(seen, (std::vector<std::string>{"1 1 abc", "3 1 "}));
}

TEST(FrameReader, PassesOverWhatIsTooLargeAndGoesOn) {
  std::string bytes;
  append_header(bytes, 1, FrameType::kRequest, kMaxMessage + 1);
  bytes += std::string(kMaxMessage + 1, 'x') + frame_of(3, FrameType::kRequest, "after");
  FrameReader reader;
  std::vector<bool> large;
  std::string last;
  reader.feed(bytes, [&](const Frame& frame) {
    large.push_back(frame.too_large);
    last = frame.message;
    return true;
  });
  EXPECT_EQ(large, (std::vector<bool>{true, false}));
  EXPECT_EQ(last, "after");
}

// Two ends of a socket pair on one loop; the far one is played by hand.
class ConnectionTest : public ::testing::Test {
 protected:
  ConnectionTest() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    near_ = UniqueFd{ends[0]};
    far_ = UniqueFd{ends[1]};
  }
  void connect(Connection::Handler handler) {
    connection_ = Connection::make(loop_, std::move(near_), {}, std::move(handler), [this] { closed_ = true; });
  }
  void run_until(const std::function<bool()>& done) {
    std::function<void()> look = [&] {
      if (done()) return loop_.stop();
      loop_.after(1'000'000, look);
    };
    look();
    loop_.run();
    loop_.restart();
  }
  void send(const std::string& bytes) {
    EXPECT_EQ(::write(far_.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  static std::string request(const std::string& method) {
    wire::Request out;
    out.set_service("s");
    out.set_method(method);
    return out.SerializeAsString();
  }
  // The frames that came to the far end, as "stream code text".
  std::vector<std::string> answers() {
    std::vector<std::string> out;
    char piece[4096];
    for (ssize_t size; (size = ::recv(far_.get(), piece, sizeof piece, MSG_DONTWAIT)) > 0;)
      reader_.feed({piece, static_cast<std::size_t>(size)}, [&](const Frame& frame) {
        wire::Response response;
        EXPECT_TRUE(response.ParseFromString(std::string{frame.message}));
        out.push_back(fmt::format("{} {} {}", frame.stream, response.status().code(), response.status().message()));
        return true;
      });
    return out;
  }

  Loop loop_;
  UniqueFd near_, far_;
  FrameReader reader_;
  std::shared_ptr<Connection> connection_;
  bool closed_ = false;
};

TEST_F(ConnectionTest, AnswersInAnyOrder) {
  std::vector<Responder> waiting;
  connect([&](const Call&, Responder answer) { waiting.push_back(std::move(answer)); });
  send(frame_of(1, FrameType::kRequest, request("a")) + frame_of(3, FrameType::kRequest, request("b")));
  run_until([&] { return waiting.size() == 2; });
  waiting[1].refuse(Code::kNotFound, "second");
  waiting[0].answer(wire::Status{});
  EXPECT_EQ(answers(), (std::vector<std::string>{"3 5 second", "1 0 "}));
}

TEST_F(ConnectionTest, ACallThatIsLetGoOfIsAnswered) {
  bool called = false;
  connect([&](const Call&, Responder) { called = true; });
  send(frame_of(1, FrameType::kRequest, request("a")));
  run_until([&] { return called; });
  EXPECT_EQ(answers(), (std::vector<std::string>{"1 2 the call was given up"}));
}

TEST_F(ConnectionTest, AMalformedRequestIsRefusedAndTheNextIsServed) {
  unsigned calls = 0;
  connect([&](const Call&, Responder answer) {
    ++calls;
    answer.answer(wire::Status{});
  });
  send(frame_of(1, FrameType::kRequest, "\xff\xff\xff") + frame_of(3, FrameType::kRequest, request("b")));
  run_until([&] { return calls == 1; });
  EXPECT_EQ(answers(), (std::vector<std::string>{"1 3 a malformed request", "3 0 "}));
}

TEST_F(ConnectionTest, AnEvenStreamEndsTheConnection) {
  connect([](const Call&, Responder answer) { answer.answer(wire::Status{}); });
  send(frame_of(2, FrameType::kRequest, request("a")));
  run_until([&] { return closed_; });
  EXPECT_FALSE(connection_->open());
}

TEST_F(ConnectionTest, AStreamUsedTwiceEndsTheConnection) {
  connect([](const Call&, Responder answer) { answer.answer(wire::Status{}); });
  send(frame_of(5, FrameType::kRequest, request("a")) + frame_of(5, FrameType::kRequest, request("a")));
  run_until([&] { return closed_; });
  EXPECT_FALSE(connection_->open());
}

TEST_F(ConnectionTest, AnAnswerThatNobodyAskedForEndsTheConnection) {
  connect(nullptr);
  send(frame_of(1, FrameType::kResponse, ""));
  run_until([&] { return closed_; });
  EXPECT_FALSE(connection_->open());
}

TEST_F(ConnectionTest, FramesOfUnknownTypesArePassedOver) {
  unsigned calls = 0;
  connect([&](const Call&, Responder answer) {
    ++calls;
    answer.answer(wire::Status{});
  });
  send(frame_of(1, static_cast<FrameType>(77), "what") + frame_of(3, FrameType::kRequest, request("b")));
  run_until([&] { return calls == 1; });
  EXPECT_FALSE(closed_);
}

TEST_F(ConnectionTest, TheOtherSidesEndAnswersWhatWaits) {
  connect(nullptr);
  Code code = Code::kOk;
  connection_->call("s", "m", wire::Status{}, [&](const Answer& answer) { code = answer.code; });
  far_.reset();
  run_until([&] { return closed_; });
  EXPECT_EQ(code, Code::kUnavailable);
}

TEST_F(ConnectionTest, AMessageThatIsTooLargeIsNotSent) {
  connect(nullptr);
  wire::Status large;
  large.set_message(std::string(kMaxMessage, 'x'));
  Code code = Code::kOk;
  connection_->call("s", "m", large, [&](const Answer& answer) { code = answer.code; });
  EXPECT_EQ(code, Code::kResourceExhausted);
  EXPECT_TRUE(answers().empty());
}

TEST(ConnectTo, NobodyListens) {
  EXPECT_FALSE(connect_to("unix:///nowhere/at/all.sock"));
  EXPECT_FALSE(connect_to(std::string(200, 'x')));
  EXPECT_FALSE(connect_to(""));
}

}  // namespace
}  // namespace bulkhead::ttrpc
