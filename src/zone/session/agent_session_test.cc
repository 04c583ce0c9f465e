#include "zone/session/agent_session.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <random>

#include "guest/agent/start_request.h"

namespace bulkhead::zone {
namespace {

using agent::FrameType;
using agent::kWindow;
using agent::Stream;

std::string frame(FrameType type, u8 stream, std::string_view payload = {}) {
  std::byte header[agent::kHeaderSize];
  agent::encode_header(header, type, stream, static_cast<u32>(payload.size()));
  return std::string(reinterpret_cast<const char*>(header), sizeof header) + std::string{payload};
}
std::string words(std::initializer_list<u32> values) {
  std::string out;
  for (const u32 value : values) out.append(reinterpret_cast<const char*>(&value), 4);
  return out;
}

class AgentSessionTest : public ::testing::Test {
 protected:
  bool say(const std::string& bytes) { return session_.receive(std::as_bytes(std::span{bytes})); }
  bool hello() { return say(frame(FrameType::kHello, 0, words({agent::kMagic, agent::kProtocolVersion}))); }
  void run() {
    ASSERT_TRUE(hello());
    session_.start(encode_start_request({.arguments = {"true"}}));
    ASSERT_TRUE(say(frame(FrameType::kStarted, 0)));
    drain();
  }
  // What we sent since the last time, as frame types.
  std::vector<FrameType> drain() {
    std::vector<FrameType> types;
    std::vector<std::byte> out(1 << 20);
    out.resize(session_.take(out));
    EXPECT_TRUE(sent_.feed(out, [&](const agent::Frame& one) {
      types.push_back(one.type);
      return true;
    }));
    return types;
  }
  AgentSession session_;
  agent::FrameDecoder sent_;
};

TEST_F(AgentSessionTest, WholeLife) {
  ASSERT_TRUE(hello());
  EXPECT_TRUE(session_.agent_is_up());
  session_.start(encode_start_request({.arguments = {"cat"}}));
  EXPECT_EQ(drain(), (std::vector{FrameType::kConfigure, FrameType::kStart}));
  ASSERT_TRUE(say(frame(FrameType::kStarted, 0)));
  session_.push_input(std::as_bytes(std::span{std::string_view{"in"}}));
  session_.end_input();
  EXPECT_EQ(drain(), (std::vector{FrameType::kData, FrameType::kEndOfStream}));
  EXPECT_EQ(session_.input_room(), 0u);
  ASSERT_TRUE(say(frame(FrameType::kData, 1, "out") + frame(FrameType::kData, 2, "err")));
  EXPECT_EQ(session_.pending(Stream::kOutput), "out");
  EXPECT_EQ(session_.pending(Stream::kError), "err");
  ASSERT_TRUE(say(frame(FrameType::kEndOfStream, 1) + frame(FrameType::kEndOfStream, 2) +
                  frame(FrameType::kExited, 0, words({0, 7}))));
  EXPECT_EQ(session_.ending()->exit_status(), 7);
  EXPECT_EQ(session_.pending(Stream::kOutput), "out");  // still to be passed on
}

TEST_F(AgentSessionTest, FramesMayComeByteByByte) {
  for (const char c : frame(FrameType::kHello, 0, words({agent::kMagic, agent::kProtocolVersion})))
    ASSERT_TRUE(say(std::string(1, c)));
  EXPECT_TRUE(session_.agent_is_up());
}

TEST_F(AgentSessionTest, CreditIsGivenAsDataIsPassedOn) {
  run();
  const std::string data(agent::kMaxPayload, 'x');
  u32 sent = 0;
  for (; sent + data.size() <= kWindow; sent += static_cast<u32>(data.size()))
    ASSERT_TRUE(say(frame(FrameType::kData, 1, data)));
  EXPECT_TRUE(drain().empty());
  session_.consume(Stream::kOutput, kWindow / 4);
  EXPECT_EQ(drain(), std::vector{FrameType::kCredit});
  EXPECT_EQ(session_.pending(Stream::kOutput).size(), sent - kWindow / 4);
  EXPECT_TRUE(say(frame(FrameType::kData, 1, data)));
}

TEST_F(AgentSessionTest, DataBeyondCreditBreaks) {
  run();
  const std::string data(agent::kMaxPayload, 'x');
  bool good = true;
  for (unsigned i = 0; good && i < 100; ++i) {
    good = say(frame(FrameType::kData, 1, data));
    EXPECT_LE(session_.pending(Stream::kOutput).size(), kWindow);
  }
  EXPECT_EQ(session_.broken(), "more data than it had credit for");
  EXPECT_FALSE(say(frame(FrameType::kData, 2, "x")));
}

TEST_F(AgentSessionTest, AbandonedOutputIsDropped) {
  run();
  ASSERT_TRUE(say(frame(FrameType::kData, 1, "abc")));
  session_.abandon(Stream::kOutput);
  EXPECT_EQ(drain(), std::vector{FrameType::kAbandon});
  ASSERT_TRUE(say(frame(FrameType::kData, 1, "more")));
  EXPECT_EQ(session_.pending(Stream::kOutput), "");
}

TEST_F(AgentSessionTest, AbandonedInputTakesNothingMore) {
  run();
  ASSERT_TRUE(say(frame(FrameType::kAbandon, 0)));
  EXPECT_EQ(session_.input_room(), 0u);
  session_.end_input();
  EXPECT_TRUE(drain().empty());
}

TEST_F(AgentSessionTest, EndingsBecomeExitStatuses) {
  using Kind = Ending::Kind;
  EXPECT_EQ((Ending{Kind::kCode, 3, {}}.exit_status()), 3);
  EXPECT_EQ((Ending{Kind::kSignal, 9, {}}.exit_status()), 137);
  EXPECT_EQ((Ending{Kind::kCommandFailed, ENOENT, {}}.exit_status()), 127);
  EXPECT_EQ((Ending{Kind::kCommandFailed, EACCES, {}}.exit_status()), 126);
  EXPECT_EQ((Ending{Kind::kCommandFailed, ENOEXEC, {}}.exit_status()), 126);
  EXPECT_EQ((Ending{Kind::kZoneFailed, 0, {}}.exit_status()), 125);
}

TEST_F(AgentSessionTest, FailureTextIsMadePrintable) {
  ASSERT_TRUE(hello());
  ASSERT_TRUE(say(frame(FrameType::kFailed, 0, words({0, 5}) + "bad\033[31m\n")));
  EXPECT_EQ(session_.ending()->text, "bad?[31m?");
}

struct HostileCase {
  const char* name;
  bool started;
  std::string bytes;
};
class HostileAgent : public AgentSessionTest, public ::testing::WithParamInterface<HostileCase> {};
TEST_P(HostileAgent, IsTurnedAway) {
  if (GetParam().started) run();
  EXPECT_FALSE(say(GetParam().bytes));
  EXPECT_FALSE(session_.broken().empty());
  EXPECT_FALSE(session_.ending().has_value());
}
std::string raw(u32 length, u8 type, u8 stream, u16 zero) {
  std::string out = words({length});
  out += static_cast<char>(type), out += static_cast<char>(stream);
  out.append(reinterpret_cast<const char*>(&zero), 2);
  return out;
}
INSTANTIATE_TEST_SUITE_P(
    All, HostileAgent,
    ::testing::Values(
        HostileCase{"NoHello", false, frame(FrameType::kStarted, 0)},
        HostileCase{"WrongMagic", false, frame(FrameType::kHello, 0, words({1, 1}))},
        HostileCase{"HelloTwice", true, frame(FrameType::kHello, 0, words({agent::kMagic, 1}))},
        HostileCase{"HugeLength", true, raw(~0u, 8, 1, 0)},
        HostileCase{"JustTooLong", true, raw(agent::kMaxPayload + 1, 8, 1, 0)},
        HostileCase{"UnknownType", true, raw(0, 77, 0, 0)}, HostileCase{"UnknownStream", true, raw(1, 8, 3, 0) + "x"},
        HostileCase{"NonzeroPadding", true, raw(1, 8, 1, 1) + "x"}, HostileCase{"EmptyData", true, raw(0, 8, 1, 0)},
        HostileCase{"DataOnInput", true, frame(FrameType::kData, 0, "x")},
        HostileCase{"StartedTwice", true, frame(FrameType::kStarted, 0)},
        HostileCase{"OurOwnFrames", true, frame(FrameType::kSignal, 0, words({9}))},
        HostileCase{"CreditOutOfNothing", true, frame(FrameType::kCredit, 0, words({1}))},
        HostileCase{"ZeroCredit", true, frame(FrameType::kCredit, 0, words({0}))},
        HostileCase{"CreditForOutput", true, frame(FrameType::kCredit, 1, words({1}))},
        HostileCase{"AbandonsItsOwn", true, frame(FrameType::kAbandon, 1)},
        HostileCase{"ExitBeforeStreamsEnd", true, frame(FrameType::kExited, 0, words({0, 0}))},
        HostileCase{"FailedAfterStart", true, frame(FrameType::kFailed, 0, words({0, 0}))},
        HostileCase{"ImpossibleSignal", true,
                    frame(FrameType::kEndOfStream, 1) + frame(FrameType::kEndOfStream, 2) +
                        frame(FrameType::kExited, 0, words({1, 65}))},
        HostileCase{"ImpossibleCode", true,
                    frame(FrameType::kEndOfStream, 1) + frame(FrameType::kEndOfStream, 2) +
                        frame(FrameType::kExited, 0, words({0, 256}))},
        HostileCase{"EndTwice", true, frame(FrameType::kEndOfStream, 1) + frame(FrameType::kEndOfStream, 1)},
        HostileCase{"DataAfterEnd", true, frame(FrameType::kEndOfStream, 1) + frame(FrameType::kData, 1, "x")}),
    [](const auto& one) { return one.param.name; });

TEST_F(AgentSessionTest, FramesAfterTheEndBreak) {
  run();
  ASSERT_TRUE(say(frame(FrameType::kEndOfStream, 1) + frame(FrameType::kEndOfStream, 2) +
                  frame(FrameType::kExited, 0, words({0, 0}))));
  EXPECT_FALSE(say(frame(FrameType::kAbandon, 0)));
  EXPECT_EQ(session_.ending()->exit_status(), 0);
}

TEST_F(AgentSessionTest, NoiseIsTurnedAway) {
  std::mt19937 random{1};
  for (unsigned round = 0; round < 2000; ++round) {
    auto session = std::make_unique<AgentSession>();
    std::string noise(64, '\0');
    for (char& c : noise) c = static_cast<char>(random());
    EXPECT_FALSE(session->receive(std::as_bytes(std::span{noise})));
  }
}

TEST(StartRequest, IsReadBackAsItWasWritten) {
  std::string bytes = encode_start_request({.terminal = true,
                                            .columns = 100,
                                            .rows = 30,
                                            .hostname = "zone",
                                            .directory = "/tmp",
                                            .user = "1000 100 5",
                                            .arguments = {"a", ""},
                                            .environment = {"X=1"},
                                            .networks = {"mac=02:00:00:00:00:01"},
                                            .volumes = {"volume0 ro /v"}});
  agent::StartReader reader{bytes};
  agent::StartHeader header{};
  ASSERT_TRUE(reader.header(header));
  EXPECT_EQ(header.columns, 100);
  for (const char* const text :
       {"zone", "/tmp", "1000 100 5", "a", "", "X=1", "mac=02:00:00:00:00:01", "volume0 ro /v"})
    EXPECT_STREQ(reader.next_string(), text);
  EXPECT_TRUE(reader.at_end());
}

TEST(StartRequest, BeyondBoundsIsRefused) {
  EXPECT_TRUE(encode_start_request({}).empty());
  EXPECT_TRUE(encode_start_request({.arguments = {std::string("a\0b", 3)}}).empty());
  EXPECT_TRUE(encode_start_request({.arguments = {std::string(agent::kMaxStartRequest, 'x')}}).empty());
  EXPECT_TRUE(encode_start_request({.arguments = std::vector<std::string>(agent::kMaxArguments + 1, "x")}).empty());
  EXPECT_TRUE(encode_start_request({.arguments = {"a"}, .networks = std::vector<std::string>(9, "mac=")}).empty());
}

TEST(StartRequest, ReaderSurvivesEveryTruncationAndFlip) {
  const std::string whole = encode_start_request({.hostname = "z", .arguments = {"a", "b"}, .environment = {"X=1"}});
  const auto read = [](std::string bytes) {
    agent::StartReader reader{bytes};
    agent::StartHeader header{};
    if (!reader.header(header)) return;
    for (u32 i = 0; i < 3 + header.arguments + header.environment; ++i)
      if (reader.next_string() == nullptr) return;
  };
  for (std::size_t i = 0; i < whole.size(); ++i) {
    read(whole.substr(0, i));
    std::string flipped = whole;
    flipped[i] = static_cast<char>(~flipped[i]);
    read(flipped);
  }
}

}  // namespace
}  // namespace bulkhead::zone
