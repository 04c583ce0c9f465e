// Requests, and a control socket with clients that behave badly.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <thread>

#include "zone/live/client.h"
#include "zone/live/control_socket.h"
#include "zone/live/line_reader.h"

namespace bulkhead::zone {
namespace {

using Verb = Request::Verb;
constexpr Nanoseconds kLong = 60'000'000'000;

std::string error(std::string_view line) {
  const auto request = parse_request(line);
  EXPECT_FALSE(request.has_value()) << line;
  return request ? "" : request.error().message;
}

TEST(Request, SaysWhatWasMeant) {
  Request add;
  add.verb = Verb::kDiskAdd;
  add.file = "/a \"b\"\n.img";
  add.read_only = true;
  const std::string line = encode_request(add);
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  const Request again = parse_request(line).value();
  EXPECT_EQ(again.verb, Verb::kDiskAdd);
  EXPECT_EQ(again.file, add.file);
  EXPECT_TRUE(again.read_only);
  EXPECT_EQ(parse_request(R"({"execute":"stop","arguments":{"timeout":3}})").value().timeout_s, 3u);
  EXPECT_EQ(parse_request(R"({"execute":"stop"})").value().timeout_s, 10u);
}

TEST(Request, JobsSayWhatWasMeant) {
  Request start;
  start.verb = Verb::kJobStart;
  start.device = "vda";
  start.job = {.kind = block::JobKind::kBackup,
               .id = "nightly",
               .target = "/srv/a.qcow2",
               .existing = true,
               .bitmap = "b0",
               .speed = u64{1} << 40,
               .on_target_error = block::JobErrorAction::kIgnore};
  const Request again = parse_request(encode_request(start)).value();
  EXPECT_EQ(again.device, "vda");
  EXPECT_EQ(again.job.kind, block::JobKind::kBackup);
  EXPECT_EQ(again.job.id + again.job.target + again.job.bitmap, "nightly/srv/a.qcow2b0");
  EXPECT_TRUE(again.job.existing && !again.job.auto_complete);
  EXPECT_EQ(again.job.speed, u64{1} << 40);
  EXPECT_EQ(again.job.on_target_error, block::JobErrorAction::kIgnore);
  Request change;
  change.verb = Verb::kJobChange;
  change.id = "nightly";
  change.action = "speed";
  change.speed = 7;
  EXPECT_EQ(parse_request(encode_request(change)).value().speed, 7u);
}

TEST(Request, NonsenseIsAnErrorInOneLine) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "not a JSON object"},
      {"[]", "not a JSON object"},
      {std::string(60000, '['), "not a JSON object"},
      {"{\"execute\":\"stop\"", "not a JSON object"},
      {"{}", "execute"},
      {R"({"execute":1})", "execute"},
      {R"({"execute":"format-c"})", "format-c"},
      {"{\"execute\":\"a\\nb\\u001b\"}", "a?b?"},
      {R"({"execute":"stop","arguments":[]})", "not an object"},
      {R"({"execute":"stop","more":1})", "more"},
      {R"({"execute":"stop","arguments":{"timeout":-1}})", "timeout"},
      {R"({"execute":"stop","arguments":{"timeout":1e300}})", "timeout"},
      {R"({"execute":"stop","arguments":{"timeout":99999999999}})", "timeout"},
      {R"({"execute":"stop","arguments":{"force":true}})", "force"},
      {R"({"execute":"disk-add"})", "file"},
      {R"({"execute":"job-start"})", "device"},
      {R"({"execute":"job-start","arguments":{"device":"vda","kind":"clone"}})", "kind"},
      {R"({"execute":"job-start","arguments":{"device":"vda","target":"a"}})", "absolute"},
      {R"({"execute":"job-start","arguments":{"device":"vda","speed":-1}})", "whole number"},
      {R"({"execute":"job-start","arguments":{"device":"vda","colour":1}})", "colour"},
      {R"({"execute":"job-change","arguments":{"id":"a","action":"dance"}})", "action"},
      {R"({"execute":"disk-add","arguments":{"file":"relative"}})", "absolute"},
      {"{\"execute\":\"disk-add\",\"arguments\":{\"file\":\"/a\\u0000b\"}}", "NUL"},
      {R"({"execute":"disk-remove","arguments":{"device":7}})", "string"},
      {R"({"execute":"disk-remove"})", "device"},
      {std::string(kMaxRequestLine + 1, ' '), "longer"},
  };
  for (const auto& [line, said] : cases) {
    const std::string message = error(line);
    EXPECT_TRUE(message.contains(said)) << message << " should say " << said;
    EXPECT_FALSE(message.contains('\n'));
  }
}

TEST(LineReader, KeepsOneLineOfBoundedLength) {
  LineReader reader{4};
  EXPECT_EQ(reader.room(), 5u);
  reader.feed("ab\nc");
  EXPECT_EQ(reader.next(), "ab");
  EXPECT_EQ(reader.next(), std::nullopt);
  reader.feed("def");
  EXPECT_FALSE(reader.too_long());
  reader.feed("g");
  EXPECT_TRUE(reader.too_long());
  EXPECT_EQ(reader.room(), 0u);
}

class Live : public ::testing::Test {
 protected:
  Live() {
    char name[] = "/tmp/bulkhead-live-XXXXXX";
    home = ::mkdtemp(name);
    folder = home + "/zones";
  }
  ~Live() override {
    server.reset();
    std::filesystem::remove_all(home);
  }
  void open(ControlSocket::Handler handler = [](const Request&, const AnswerPtr& answer) { answer->give("\"ok\""); }) {
    auto place = SocketPlace::take(folder, "one");
    ASSERT_TRUE(place && *place);
    server = std::make_unique<ControlSocket>(std::move(**place), std::move(handler));
  }
  UniqueFd raw() { return connect_to_zone(folder, "one").value(); }
  static void say(const UniqueFd& fd, std::string_view text) {
    while (!text.empty()) {
      const ssize_t size = ::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (size > 0) text.remove_prefix(static_cast<std::size_t>(size));
      if (size < 0 && errno != EAGAIN) return;
    }
  }
  // Until the end, or `lines` lines.
  static std::string hear(const UniqueFd& fd, long lines) {
    std::string text;
    char byte;
    while (std::ranges::count(text, '\n') < lines) {
      const ssize_t size = ::recv(fd.get(), &byte, 1, 0);
      if (size == 1) text += byte;
      if (size == 0 || (size < 0 && errno != EAGAIN)) break;
    }
    return text;
  }
  Result<std::string> ask() { return ZoneClient::connect(folder, "one").value().ask({}, kLong); }

  std::string home, folder;
  std::unique_ptr<ControlSocket> server;
};

TEST_F(Live, AsksAndAnswers) {
  open();
  EXPECT_EQ(ask().value(), "\"ok\"");
  const UniqueFd fd = raw();
  say(fd, "{\"execute\":\"query\"}\nnonsense\n{\"execute\":\"query\"}\n");
  EXPECT_EQ(hear(fd, 3),
            "{\"return\": \"ok\"}\n{\"error\":\"the request is not a JSON object\"}\n{\"return\": \"ok\"}\n");
  ::shutdown(fd.get(), SHUT_WR);
  EXPECT_EQ(hear(fd, 1), "");
}

TEST_F(Live, ALineWithoutEndIsCutOff) {
  open();
  const UniqueFd fd = raw();
  say(fd, std::string(kMaxRequestLine + 100, 'x'));
  EXPECT_TRUE(hear(fd, 1).contains("longer"));
  EXPECT_EQ(hear(fd, 1), "");
  EXPECT_TRUE(ask());
}

TEST_F(Live, SilentClientsAndThoseWhoDoNotReadKeepNobodyWaiting) {
  open();
  const UniqueFd silent = raw(), half = raw(), deaf = raw();
  say(half, "{\"exec");
  for (int i = 0; i < 1000; ++i)
    (void)!::send(deaf.get(), "{\"execute\":\"query\"}\n", 20, MSG_DONTWAIT | MSG_NOSIGNAL);
  EXPECT_EQ(ask().value(), "\"ok\"");
}

TEST_F(Live, TooManyClientsAreTurnedAway) {
  open();
  std::vector<UniqueFd> all;
  for (std::size_t i = 0; i < ControlSocket::kMaxClients; ++i) {
    all.push_back(raw());
    say(all.back(), "{\"execute\":\"query\"}\n");
    EXPECT_FALSE(hear(all.back(), 1).empty());
  }
  const UniqueFd late = raw();
  EXPECT_TRUE(hear(late, 1).contains("visitors"));
  EXPECT_EQ(hear(late, 1), "");
}

TEST_F(Live, WhoLeavesBeforeTheAnswerIsForgotten) {
  std::vector<AnswerPtr> kept;
  Mutex mutex;
  open([&](const Request& request, const AnswerPtr& answer) {
    const Lock lock{mutex};
    if (request.verb == Verb::kQuery) return answer->give("1");
    kept.push_back(answer);
  });
  {
    const UniqueFd fd = raw();
    say(fd, "{\"execute\":\"kill\"}\n");
  }
  EXPECT_TRUE(ask());
  const Lock lock{mutex};
  for (const AnswerPtr& answer : kept) answer->give("2");
}

TEST_F(Live, AnAnswerThatNobodyGivesIsAnError) {
  open([](const Request&, const AnswerPtr&) {});
  EXPECT_TRUE(ask().error().message.contains("did not answer"));
}

TEST_F(Live, TheEndTellsThoseWhoWait) {
  AnswerPtr kept;
  std::atomic<bool> came = false;
  open([&](const Request&, const AnswerPtr& answer) {
    kept = answer;
    came = true;
  });
  const UniqueFd fd = raw();
  say(fd, "{\"execute\":\"kill\"}\n");
  while (!came) std::this_thread::yield();
  server->free_name();
  EXPECT_TRUE(SocketPlace::take(folder, "one").value().has_value());  // before the answer
  kept->give("true");
  server.reset();
  EXPECT_EQ(hear(fd, 1), "{\"return\": true}\n");
}

TEST_F(Live, NamesAreOnesOwnWhileOneLives) {
  open();
  EXPECT_FALSE(SocketPlace::take(folder, "one").value().has_value());
  EXPECT_EQ(list_zones(folder), std::vector<std::string>{"one"});
  server.reset();
  EXPECT_TRUE(list_zones(folder).empty());
  EXPECT_TRUE(std::filesystem::is_empty(folder));
  EXPECT_TRUE(connect_to_zone(folder, "one").error().message.contains("no zone 'one' is running"));
  for (const char* const bad : {"", "..", "a/b", ".hidden"}) EXPECT_FALSE(SocketPlace::take(folder, bad)) << bad;
}

TEST_F(Live, ADeadZonesSocketIsTakenOver) {
  ASSERT_TRUE(SocketPlace::take(folder, "one").value().has_value());
  for (int round = 0; round < 2; ++round) {
    const UniqueFd dead{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    (folder + "/one.sock").copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(dead.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    if (round == 0) {
      EXPECT_TRUE(SocketPlace::take(folder, "one").value().has_value());
    } else {
      EXPECT_TRUE(list_zones(folder).empty());
    }
    EXPECT_TRUE(std::filesystem::is_empty(folder));
  }
}

TEST_F(Live, AFolderThatOthersMayEnterIsRefused) {
  std::filesystem::create_directories(folder);
  ::chmod(folder.c_str(), 0755);
  EXPECT_TRUE(SocketPlace::take(folder, "one").error().message.contains("not ours alone"));
}

}  // namespace
}  // namespace bulkhead::zone
