// Streams between FIFOs and an agent that is slow, or a reader that is.
#include "container/shim/streams.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>

namespace bulkhead::container {
namespace {

namespace fs = std::filesystem;
constexpr Nanoseconds kMillisecond = 1'000'000;

// An agent whose answers the test gives.
class StreamsTest : public ::testing::Test {
 protected:
  StreamsTest() {
    std::string name = fs::temp_directory_path() / "bulkhead-streams-XXXXXX";
    folder_ = ::mkdtemp(name.data());
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    agent_ = ttrpc::Connection::make(
        loop_, UniqueFd{fds[1]}, {},
        [this](const ttrpc::Call& call, ttrpc::Responder answer) { asked_.emplace(call.method, std::move(answer)); },
        nullptr);
    pod_.greet(UniqueFd{fds[0]}, nullptr);
    name_.set_container("c");
  }
  ~StreamsTest() override { fs::remove_all(folder_); }

  void run_for(Nanoseconds time) {
    loop_.restart();
    loop_.after(time, [this] { loop_.stop(); });
    loop_.run();
  }
  // Answers the next call of that method, when it is there.
  void answer(const std::string& method, const google::protobuf::MessageLite& message) {
    for (int i = 0; i < 5000 && !asked_.contains(method); ++i) run_for(kMillisecond);
    const auto found = asked_.find(method);
    ASSERT_NE(found, asked_.end()) << method;
    ttrpc::Responder responder = std::move(found->second);
    asked_.erase(found);
    responder.answer(message);
  }
  void say(const std::string& data) {
    pod::ReadResponse response;
    response.set_data(data);
    answer("Read", response);
  }
  void open(const std::string& output) {
    auto made = Streams::open(loop_, pod_, name_, {"", output, "", false});
    ASSERT_TRUE(made) << made.error().message;
    streams_ = std::move(*made);
    streams_->begin();
  }
  void drain(Nanoseconds patience) {
    streams_->drained(patience, [this] { drained_ = true; });
  }
  std::string text() const {
    std::ifstream in{folder_ / "out", std::ios::binary};
    return {std::istreambuf_iterator<char>{in}, {}};
  }

  fs::path folder_;
  Loop loop_;
  Pod pod_{loop_, 2, [](const std::string&) {}};
  std::shared_ptr<ttrpc::Connection> agent_;
  std::multimap<std::string, ttrpc::Responder> asked_;
  pod::ProcessName name_;
  std::shared_ptr<Streams> streams_;
  bool drained_ = false;
};

TEST_F(StreamsTest, AZoneThatIsSlowLosesNothing) {
  open("file://" + (folder_ / "out").string());
  drain(kMillisecond);
  run_for(50 * kMillisecond);
  EXPECT_FALSE(drained_) << "the zone has not said that there is nothing";
  say("late");
  answer("Wait", pod::WaitResponse{});
  run_for(20 * kMillisecond);
  EXPECT_FALSE(drained_) << "there was something, so there may be more";
  answer("Wait", pod::WaitResponse{});
  for (int i = 0; i < 5000 && !drained_; ++i) run_for(kMillisecond);
  EXPECT_TRUE(drained_) << "children that hold the stream are not waited for";
  EXPECT_EQ(text(), "late");
}

TEST_F(StreamsTest, TheEndOfTheStreamIsTheEnd) {
  open("file://" + (folder_ / "out").string());
  drain(kMillisecond);
  say("all");
  say("");
  for (int i = 0; i < 5000 && !drained_; ++i) run_for(kMillisecond);
  EXPECT_TRUE(drained_);
  EXPECT_EQ(text(), "all");
}

TEST_F(StreamsTest, AReaderThatDoesNotReadIsNotWaitedForLong) {
  const std::string fifo = folder_ / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  open(fifo);
  say(std::string(1'000'000, 'x'));  // more than a FIFO takes
  drain(5 * kMillisecond);
  answer("Wait", pod::WaitResponse{});
  for (int i = 0; i < 5000 && !drained_; ++i) run_for(kMillisecond);
  EXPECT_TRUE(drained_);
}

TEST_F(StreamsTest, AZoneThatIsGoneIsTheEnd) {
  open("file://" + (folder_ / "out").string());
  drain(kMillisecond);
  agent_->close();
  for (int i = 0; i < 5000 && !drained_; ++i) run_for(kMillisecond);
  EXPECT_TRUE(drained_);
}

}  // namespace
}  // namespace bulkhead::container
