#include "fs/process/file_server.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>

#include "fs/process/serve.h"

extern char** environ;

namespace bulkhead::fs {
namespace {

constexpr int kReadyTimeoutMs = 30'000;

bool good_share_name(const std::string& name) {
  const auto good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  };
  return !name.empty() && name.size() <= 64 && name != "." && name != ".." && std::ranges::all_of(name, good);
}

Result<void> check(const FileServerConfig& config) {
  if (config.shares.empty() || config.shares.size() > FileServer::kMaxShares)
    return fail("{} shares: a zone has 1 to {}", config.shares.size(), FileServer::kMaxShares);
  if (config.lanes < 1 || config.lanes > FileServer::kMaxLanes)
    return fail("{} lanes: a file server has 1 to {}", config.lanes, FileServer::kMaxLanes);
  for (const ShareSpec& share : config.shares) {
    if (!good_share_name(share.name)) return fail("the share's name '{}' is not one", share.name);
    if (!share.path.starts_with('/')) return fail("the share {} has no absolute path: {}", share.name, share.path);
    if (std::ranges::count(config.shares, share.name, &ShareSpec::name) != 1)
      return fail("two shares have the name {}", share.name);
    struct stat status{};
    if (::stat(share.path.c_str(), &status) != 0) return fail_errno("sharing {}", share.path);
    if (!S_ISDIR(status.st_mode) && !S_ISREG(status.st_mode))
      return fail("sharing {}: it is neither a folder nor a regular file", share.path);
  }
  return {};
}

// The descriptors that the new process gets: 3 its words to us, 4 the counters, from 5 the lanes.
class Actions {
 public:
  Actions() {
    ::posix_spawn_file_actions_init(&actions_);
    ::posix_spawnattr_init(&attributes_);
    sigset_t none, all;
    ::sigemptyset(&none);
    ::sigfillset(&all);
    ::posix_spawnattr_setsigmask(&attributes_, &none);
    ::posix_spawnattr_setsigdefault(&attributes_, &all);
    // A group of its own: ^C at our terminal is ours to obey, and the zone may still have something to write.
    ::posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    for (const int standard : {0, 1, 2})
      ::posix_spawn_file_actions_addopen(&actions_, standard, "/dev/null", O_RDWR, 0);
  }
  ~Actions() {
    ::posix_spawn_file_actions_destroy(&actions_);
    ::posix_spawnattr_destroy(&attributes_);
  }
  // First away from where the others are to be.
  void give(const std::vector<int>& descriptors) {
    constexpr int kAway = 200;
    for (std::size_t i = 0; i < descriptors.size(); ++i)
      ::posix_spawn_file_actions_adddup2(&actions_, descriptors[i], kAway + static_cast<int>(i));
    for (std::size_t i = 0; i < descriptors.size(); ++i) {
      ::posix_spawn_file_actions_adddup2(&actions_, kAway + static_cast<int>(i), kWordsFd + static_cast<int>(i));
      ::posix_spawn_file_actions_addclose(&actions_, kAway + static_cast<int>(i));
    }
  }
  Result<pid_t> spawn(const std::string& program, std::vector<std::string> words) {
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    pid_t process = -1;
    errno = ::posix_spawn(&process, program.c_str(), &actions_, &attributes_, arguments.data(), environ);
    if (errno != 0) return fail_errno("starting the file server ({})", program);
    return process;
  }

 private:
  posix_spawn_file_actions_t actions_;
  posix_spawnattr_t attributes_;
};

Result<void> wait_until_ready(int words) {
  std::string said;
  for (;;) {
    pollfd entry{words, POLLIN, 0};
    const int count = ::poll(&entry, 1, kReadyTimeoutMs);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return fail("the file server did not start within {} s", kReadyTimeoutMs / 1000);
    char text[1024];
    const ssize_t size = ::read(words, text, sizeof text);
    if (size > 0) said.append(text, static_cast<std::size_t>(size));
    if (said == kReadyWord) return {};
    if (size == 0 || said.size() > sizeof text)
      return fail("the file server did not start: {}", said.empty() ? "it says nothing" : said.substr(0, 500));
  }
}

}  // namespace

Result<std::unique_ptr<FileServer>> FileServer::start(const FileServerConfig& config) {
  BH_TRY(check(config));
  std::unique_ptr<FileServer> server{new FileServer};
  int words[2];
  if (::pipe2(words, O_CLOEXEC) != 0) return fail_errno("making a pipe for the file server");
  const UniqueFd said{words[0]};
  UniqueFd says{words[1]};
  const UniqueFd memory{::memfd_create("bulkhead-fs-counts", MFD_CLOEXEC)};
  if (!memory || ::ftruncate(memory.get(), sizeof(Counts)) != 0) return fail_errno("making memory for counters");
  void* const mapped = ::mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  if (mapped == MAP_FAILED) return fail_errno("mapping memory for counters");
  server->counts_ = new (mapped) Counts{};
  std::vector<UniqueFd> theirs;
  std::vector<int> descriptors = {says.get(), memory.get()};
  for (unsigned i = 0; i < config.lanes; ++i) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return fail_errno("making a socket");
    server->lanes_.emplace_back(ends[0]);
    theirs.emplace_back(ends[1]);
    ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
    descriptors.push_back(ends[1]);
    for (const int end : ends) {  // as much as is allowed: a whole read or write goes at once
      const int bytes = 2 << 20;
      ::setsockopt(end, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    }
  }
  Actions actions;
  actions.give(descriptors);
  std::vector<std::string> arguments = {"bulkhead", kServeArgument, std::to_string(config.lanes)};
  for (const ShareSpec& share : config.shares)
    for (const std::string& word : {share.name, std::string{share.read_only ? "ro" : "rw"}, share.path})
      arguments.push_back(word);
  BH_ASSIGN(server->process_, actions.spawn(config.program, std::move(arguments)));
  says.reset();
  theirs.clear();
  BH_TRY(wait_until_ready(said.get()));
  return server;
}

FileServer::~FileServer() {
  lanes_.clear();
  if (process_ > 0) {
    // It has nothing to put in order: what a request changed is done when it was answered.
    ::kill(process_, SIGKILL);
    while (::waitpid(process_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  if (counts_ != nullptr) ::munmap(counts_, sizeof(Counts));
}

}  // namespace bulkhead::fs
