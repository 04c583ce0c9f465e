#include "container/shim/pod.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <filesystem>

#include "base/log.h"
#include "container/shim/pod_network.h"
#include "container/shim/share.h"
#include "zone/live/socket_place.h"

namespace bulkhead::container {
namespace {

constexpr char kService[] = "bulkhead.pod.v1.Pod";
constexpr u32 kOldestVersion = 1, kNewestVersion = 1;
constexpr int kStopPatienceMs = 3000;
constexpr Nanoseconds kEndPatience = 15'000'000'000;  // a zone takes a while to end
constexpr std::size_t kKeptComplaint = 4096;
constexpr std::size_t kMostText = 2048;
constexpr char kBroken[] = "the zone's pod agent has gone, or does not keep to its protocol";

// Beside the shim, or wherever programs are.
std::string monitor_program() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::filesystem::path beside = self.parent_path() / "bulkhead";
  return !error && ::access(beside.c_str(), X_OK) == 0 ? beside.string() : "bulkhead";
}

std::vector<std::string> monitor_arguments(const PodConfig& config, const std::vector<std::string>& networks) {
  std::vector<std::string> out = {monitor_program(), "run", "--pod", "--name", config.name};
  const auto add = [&](const char* option, std::string value) {
    out.emplace_back(option);
    out.push_back(std::move(value));
  };
  add("--virt-backend", config.wish.backend);
  add("--engine", config.wish.engine);
  add("--cpus", std::to_string(config.wish.cpus));
  add("--memory", fmt::format("{}M", config.wish.memory / 1_MiB));
  add("--volume", fmt::format("{}:{}", config.share, Share::kInZone));
  for (const std::string& network : networks) add("--net", network);
  if (networks.empty()) add("--net", "none");
  return out;
}

[[noreturn]] void become_monitor(const std::vector<std::string>& words, const std::string& cgroups_path, int stream,
                                 int complaints) {
  enter_host_cgroup(cgroups_path);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::dup2(stream, 0);
  ::dup2(stream, 1);
  ::dup2(complaints, 2);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  if (::getenv("HOME") == nullptr) ::setenv("HOME", "/root", 1);
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  ::execvp(arguments[0], arguments.data());
  ::dprintf(2, "bulkhead: running %s: %s\n", arguments[0], std::strerror(errno));
  ::_exit(125);
}

}  // namespace

void Pod::start(const PodConfig& config, Ready ready) {
  ready_ = std::move(ready);
  auto stream = launch(config);
  if (!stream) return not_ready(stream.error().message);
  greet(std::move(*stream), std::move(ready_));
}

Result<UniqueFd> Pod::launch(const PodConfig& config) {
  BH_ASSIGN(const std::vector<std::string> networks, pod_networks(config.net_space));
  cgroups_path_ = config.cgroups_path;
  int stream[2], complaints[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream) != 0) return fail_errno("making a socket pair");
  UniqueFd ours{stream[0]}, theirs{stream[1]};
  if (::pipe2(complaints, O_CLOEXEC) != 0) return fail_errno("making a pipe");
  complaints_ = UniqueFd{complaints[0]};
  const UniqueFd their_complaints{complaints[1]};
  const std::vector<std::string> words = monitor_arguments(config, networks);
  monitor_ = ::fork();
  if (monitor_ < 0) return fail_errno("starting the monitor");
  if (monitor_ == 0) become_monitor(words, config.cgroups_path, theirs.get(), their_complaints.get());
  last_monitor_ = monitor_;
  pidfd_ = UniqueFd{static_cast<int>(::syscall(SYS_pidfd_open, monitor_, 0))};
  if (!pidfd_) return fail_errno("watching the monitor");
  ::fcntl(complaints_.get(), F_SETFL, O_NONBLOCK);
  loop_.watch(pidfd_.get(), POLLIN, [this](short) { monitor_ended(); });
  loop_.watch(complaints_.get(), POLLIN, [this](short) { read_complaints(); });
  return ours;
}

void Pod::greet(UniqueFd stream, Ready ready) {
  ready_ = std::move(ready);
  agent_ = ttrpc::Connection::make(loop_, std::move(stream), {}, nullptr, [this] { agent_lost(); });
  pod::HelloRequest request;
  request.set_oldest(kOldestVersion);
  request.set_newest(kNewestVersion);
  call("Hello", request, [this](const ttrpc::Answer& answer) {
    if (answer.code == ttrpc::Code::kUnavailable) return;  // the monitor's end tells why
    pod::HelloResponse response;
    if (!answer.good()) return not_ready(answer.text);
    if (!response.ParseFromString(answer.payload) || response.version() < kOldestVersion ||
        response.version() > kNewestVersion)
      return not_ready(
          fmt::format("the zone's pod agent answers with version {} of the protocol, this shim speaks {} to {}",
                      response.version(), kOldestVersion, kNewestVersion));
    if (ready_) std::exchange(ready_, nullptr)({});
  });
}

// When the stream ends the monitor is about to end, and its end is what tells why. One that goes on has a guest that
// cannot be talked to any more.
void Pod::agent_lost() {
  if (monitor_ <= 0) return not_ready(kBroken);
  patience_ = loop_.after(kEndPatience, [this] {
    const bool was_ready = !ready_;
    end();
    if (!was_ready) return not_ready(kBroken);
    dead_(kBroken);
  });
}

void Pod::call(const char* method, const google::protobuf::MessageLite& message, ttrpc::Connection::Done done) {
  if (!agent_ || !agent_->open()) return done({ttrpc::Code::kUnavailable, "the pod's zone has ended", {}});
  agent_->call(kService, method, message, [done = std::move(done)](const ttrpc::Answer& answer) {
    if (answer.text.size() <= kMostText) return done(answer);
    done({answer.code, answer.text.substr(0, kMostText), answer.payload});
  });
}

void Pod::not_ready(std::string why) {
  end();
  if (ready_) std::exchange(ready_, nullptr)(std::unexpected(Error{std::move(why)}));
}

void Pod::read_complaints() {
  char piece[2048];
  const ssize_t size = ::read(complaints_.get(), piece, sizeof piece);
  if (size < 0) return;
  if (size == 0) return loop_.forget(complaints_.get());
  (void)!::write(log_, piece, static_cast<std::size_t>(size));
  complaint_.append(piece, static_cast<std::size_t>(size));
  if (complaint_.size() > kKeptComplaint) complaint_.erase(0, complaint_.size() - kKeptComplaint);
}

// The last line, without our own name in front: the monitor says there why it ended.
std::string Pod::reason() const {
  std::string text = complaint_;
  while (text.ends_with('\n')) text.pop_back();
  if (const std::size_t line = text.rfind('\n'); line != std::string::npos) text.erase(0, line + 1);
  if (text.starts_with("bulkhead: ")) text.erase(0, 10);
  return text.empty() ? "the pod's monitor ended without a word" : text;
}

void Pod::monitor_ended() {
  if (complaints_) read_complaints();
  const bool was_ready = !ready_;
  end();
  if (!was_ready) return not_ready(reason());
  dead_(reason());
}

// The first signal asks the zone to end, the second one the monitor to end it.
void Pod::stop_monitor() {
  for (const int number : {SIGTERM, SIGINT}) ::kill(monitor_, number);
  pollfd ended{pidfd_.get(), POLLIN, 0};
  if (::poll(&ended, 1, kStopPatienceMs) != 1) ::kill(monitor_, SIGKILL);
  while (::waitpid(monitor_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

void Pod::end() {
  loop_.cancel(std::exchange(patience_, 0));
  if (monitor_ <= 0) return;
  loop_.forget(pidfd_.get());
  loop_.forget(complaints_.get());
  stop_monitor();
  monitor_ = -1;
  zone::list_zones(zone::socket_folder());  // takes away what a zone that was killed has left there
  if (agent_) std::exchange(agent_, nullptr)->close();
  remove_host_cgroup(cgroups_path_);
}

}  // namespace bulkhead::container
