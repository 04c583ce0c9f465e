#include "net/user/passt.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

extern char** environ;

namespace bulkhead::net {
namespace {

constexpr int kSocketInPasst = 3, kReadyInPasst = 4, kReadyTimeoutMs = 30'000;

struct Pipe {
  UniqueFd read, write;
};

Result<Pipe> make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return fail_errno("making a pipe");
  return Pipe{UniqueFd{ends[0]}, UniqueFd{ends[1]}};
}

// 0/HOST:GUEST in passt's words.
std::string published(const PublishedPort& port) {
  return fmt::format("{}{}:{}", port.address.empty() ? "" : port.address + "/", port.host, port.guest);
}

std::vector<std::string> command_of(const UserConfig& config) {
  std::vector<std::string> words = {"passt", "-f",
                                    "-q",    "--stderr",
                                    "-F",    std::to_string(kSocketInPasst),
                                    "-P",    fmt::format("/proc/self/fd/{}", kReadyInPasst),
                                    "-m",    std::to_string(config.mtu)};
  const auto add = [&](std::initializer_list<const char*> more) {
    words.insert(words.end(), more.begin(), more.end());
  };
  if (config.ipv4) add({"-a", kUserAddress4, "-n", "24", "-g", kUserGateway4, "--dns-forward", kUserDns4});
  if (config.ipv6) add({"-a", kUserAddress6, "-g", kUserGateway6, "--dns-forward", kUserDns6});
  if (!config.ipv6) add({"-4"});
  if (!config.ipv4) add({"-6"});
  if (!config.host_loopback) add({"--no-map-gw"});
  for (const PublishedPort& port : config.ports) {
    words.emplace_back(port.udp ? "-u" : "-t");
    words.push_back(published(port));
  }
  return words;
}

Result<pid_t> spawn(std::vector<std::string> command, int socket, int ready, int words) {
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  // First away from where the others are to be.
  for (const auto& [from, to] :
       {std::pair{socket, 10}, {ready, 11}, {words, 2}, {10, kSocketInPasst}, {11, kReadyInPasst}})
    ::posix_spawn_file_actions_adddup2(&actions, from, to);
  for (const int used : {10, 11}) ::posix_spawn_file_actions_addclose(&actions, used);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0);
  ::posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_RDWR, 0);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t none, all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  // A group of its own: ^C at our terminal is ours to obey, and the zone may still have something to say.
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  std::vector<char*> arguments;
  for (std::string& word : command) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t process = -1;
  const int error = ::posix_spawnp(&process, "passt", &actions, &attributes, arguments.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  errno = error;
  if (error == ENOENT) return fail("passt is not installed on this host: install the package passt, or use --net none");
  if (error != 0) return fail_errno("starting passt");
  return process;
}

std::string last_line(std::string text) {
  while (text.ends_with('\n')) text.pop_back();
  return text.substr(text.rfind('\n') + 1);
}

}  // namespace

bool passt_is_installed() {
  const char* const variable = std::getenv("PATH");
  std::string_view path = variable != nullptr ? variable : "/usr/local/bin:/usr/bin:/bin";
  while (!path.empty()) {
    const std::string folder{path.substr(0, path.find(':'))};
    if (::access((folder + "/passt").c_str(), X_OK) == 0) return true;
    path.remove_prefix(std::min(folder.size() + 1, path.size()));
  }
  return false;
}

Result<std::unique_ptr<Passt>> Passt::start(const UserConfig& config, const MacAddress&) {
  std::unique_ptr<Passt> passt{new Passt};
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return fail_errno("making a socket for passt");
  UniqueFd ours{ends[0]}, its{ends[1]};
  for (const int end : ends) {  // as much as is allowed
    const int bytes = 4 << 20;
    ::setsockopt(end, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  }
  ::fcntl(ours.get(), F_SETFL, ::fcntl(ours.get(), F_GETFL) | O_NONBLOCK);
  BH_ASSIGN(Pipe ready, make_pipe());
  BH_ASSIGN(Pipe words, make_pipe());  // not blocking: nobody reads it while the zone runs
  ::fchmod(ready.write.get(), 0666);   // it opens it again, as somebody else when we are root
  BH_ASSIGN(passt->process_, spawn(command_of(config), its.get(), ready.write.get(), words.write.get()));
  passt->ready_ = std::move(ready.read);
  passt->words_ = std::move(words.read);
  passt->queue_ = std::make_unique<StreamQueue>(std::move(ours));
  return passt;
}

Result<void> Passt::wait_until_ready() {
  if (serves_) return {};
  pollfd entry{ready_.get(), POLLIN, 0};
  int count;
  do {
    count = ::poll(&entry, 1, kReadyTimeoutMs);
  } while (count < 0 && errno == EINTR);
  char pid[32];
  serves_ = count == 1 && ::read(ready_.get(), pid, sizeof pid) > 0;
  if (serves_) return {};
  char text[4096] = {};
  (void)!::read(words_.get(), text, sizeof text - 1);
  return fail("the user network cannot be started: passt says: {}",
              text[0] != 0 ? last_line(text) : "nothing, and did not start in time");
}

Passt::~Passt() {
  queue_.reset();  // it ends by itself then
  if (process_ < 0) return;
  ::kill(process_, SIGKILL);
  while (::waitpid(process_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

}  // namespace bulkhead::net
