// The shim's half of a pod against agents that are not as they should be, and against the real one.
#include "container/shim/pod.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "container/shim/streams.h"
#include "container/ttrpc/ttrpc.pb.h"

namespace bulkhead::container {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

struct Pair {
  Pair() {
    int fds[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) ADD_FAILURE();
    shim = UniqueFd{fds[0]};
    agent = UniqueFd{fds[1]};
  }
  void say(const std::string& bytes) const {
    EXPECT_EQ(::write(agent.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  UniqueFd shim, agent;
};

std::string response(u32 stream, const ttrpc::wire::Response& message) {
  std::string out;
  const std::string bytes = message.SerializeAsString();
  ttrpc::append_header(out, stream, ttrpc::FrameType::kResponse, bytes.size());
  return out + bytes;
}

std::string hello_of(u32 version) {
  pod::HelloResponse hello;
  hello.set_version(version);
  ttrpc::wire::Response message;
  hello.SerializeToString(message.mutable_payload());
  return response(1, message);
}

std::string refusal_of(std::string text) {
  ttrpc::wire::Response message;
  message.mutable_status()->set_code(9);
  message.mutable_status()->set_message(std::move(text));
  return response(1, message);
}

// What comes of an agent that answers so.
std::string greeting(const std::string& answer) {
  Loop loop;
  const Pair pair;
  Pod pod{loop, STDERR_FILENO, [](const std::string&) {}};
  std::string out = "no answer";
  pair.say(answer);
  pod.greet(UniqueFd{::dup(pair.shim.get())}, [&](const Result<void>& ready) {
    out = ready ? "ready" : ready.error().message;
    loop.stop();
  });
  if (out == "no answer") loop.run();
  return out;
}

TEST(Pod, TheAgentsVersionIsJudged) {
  EXPECT_EQ(greeting(hello_of(1)), "ready");
  for (const u32 version : {0u, 2u, 0xffffffffu})
    EXPECT_THAT(greeting(hello_of(version)),
                AllOf(HasSubstr(fmt::format("version {} of the protocol", version)), HasSubstr("speaks 1 to 1")));
}

TEST(Pod, ARefusalIsPassedOnAndCutShort) {
  EXPECT_EQ(greeting(refusal_of("no such version")), "no such version");
  EXPECT_EQ(greeting(refusal_of(std::string(100000, 'x'))).size(), 2048u);
}

TEST(Pod, AnAgentThatTalksNonsenseIsNoAgent) {
  std::string call;  // a stream that no caller may use
  ttrpc::append_header(call, 2, ttrpc::FrameType::kRequest, 0);
  EXPECT_THAT(greeting(call), HasSubstr("does not keep to its protocol"));
  std::string unasked = hello_of(1);
  unasked[7] = 3;  // the answer to a call that nobody made
  EXPECT_THAT(greeting(unasked), HasSubstr("does not keep to its protocol"));
}

// ---- the real agent; it does nothing to this host before it is asked for containers

class RealAgent {
 public:
  explicit RealAgent(const Pair& pair) : pid_{::fork()} {
    if (pid_ != 0) return;
    ::dup2(pair.agent.get(), 0);
    ::dup2(pair.agent.get(), 1);
    ::execl(BULKHEAD_POD_AGENT, "agent", nullptr);
    ::_exit(1);
  }
  RealAgent(const RealAgent&) = delete;
  ~RealAgent() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

 private:
  pid_t pid_;
};

TEST(PodAgent, SpeaksTheShimsVersion) {
  Loop loop;
  const Pair pair;
  const RealAgent agent{pair};
  Pod pod{loop, STDERR_FILENO, [](const std::string&) {}};
  bool good = false;
  pod.greet(UniqueFd{::dup(pair.shim.get())}, [&](const Result<void>& ready) {
    good = ready.has_value();
    loop.stop();
  });
  loop.run();
  EXPECT_TRUE(good);
}

// Its answer to a first call.
ttrpc::Answer ask(const char* method, const google::protobuf::MessageLite& message) {
  Loop loop;
  Pair pair;
  const RealAgent agent{pair};
  pair.agent.reset();
  const auto connection = ttrpc::Connection::make(loop, std::move(pair.shim), {}, nullptr, nullptr);
  ttrpc::Answer out;
  connection->call("bulkhead.pod.v1.Pod", method, message, [&](const ttrpc::Answer& answer) {
    out = answer;
    loop.stop();
  });
  loop.run();
  return out;
}

TEST(PodAgent, RefusesOtherVersionsAndNamesThem) {
  pod::HelloRequest newer;
  newer.set_oldest(7);
  newer.set_newest(9);
  EXPECT_THAT(ask("Hello", newer).text,
              AllOf(HasSubstr("versions 1 to 1"), HasSubstr("the shim 7 to 9"), HasSubstr("same release")));
  EXPECT_EQ(ask("Hello", newer).code, ttrpc::Code::kFailedPrecondition);
  EXPECT_THAT(ask("Hello", pod::HelloRequest{}).text, HasSubstr("the shim 0 to 0"));
}

TEST(PodAgent, TakesTheNewestThatBothSpeak) {
  pod::HelloRequest wide;
  wide.set_newest(9);
  pod::HelloResponse response;
  ASSERT_TRUE(response.ParseFromString(ask("Hello", wide).payload));
  EXPECT_EQ(response.version(), 1u);
}

TEST(PodAgent, DoesNothingBeforeItIsGreeted) {
  pod::Container container;
  container.set_name("c");
  EXPECT_THAT(ask("Create", container).text, HasSubstr("Hello comes first"));
}

}  // namespace
}  // namespace bulkhead::container
