#include "zone/store/tool.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string_view>

#include "base/clock.h"
#include "base/fd.h"

namespace bulkhead::zone {
namespace {

constexpr std::size_t kTail = 2048;          // of stderr, kept for the error
constexpr std::size_t kMaxOutput = 4 << 20;  // of stdout, when kept
constexpr int kPollMs = 100;
constexpr Nanoseconds kGrace = 10'000'000'000;  // between asking and making

struct Child {
  pid_t pid = -1;
  UniqueFd output, error;
};

// Everything that must exist before fork(): after it only async-signal-safe calls are allowed.
struct Prepared {
  std::string path;
  std::vector<std::string> environment_text;
  std::vector<char*> arguments, environment;
};

Prepared prepare(const Tool& tool, std::string path) {
  Prepared prepared;
  prepared.path = std::move(path);
  for (const std::string& argument : tool.command) prepared.arguments.push_back(const_cast<char*>(argument.c_str()));
  prepared.arguments.push_back(nullptr);
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view text = *variable;
    const std::string_view name = text.substr(0, text.find('='));
    bool replaced = name == "LC_ALL" || name == "PATH";
    for (const auto& [key, value] : tool.environment) replaced |= name == key;
    if (!replaced) prepared.environment_text.emplace_back(text);
  }
  const char* const path_variable = ::getenv("PATH");
  prepared.environment_text.push_back(std::string{"PATH="} +
                                      (path_variable != nullptr ? path_variable : "/usr/bin:/bin") +
                                      ":/usr/local/sbin:/usr/sbin:/sbin");
  prepared.environment_text.emplace_back("LC_ALL=C.UTF-8");
  for (const auto& [key, value] : tool.environment) prepared.environment_text.push_back(key + "=" + value);
  for (std::string& variable : prepared.environment_text) prepared.environment.push_back(variable.data());
  prepared.environment.push_back(nullptr);
  return prepared;
}

[[noreturn]] void be_the_tool(const Prepared& prepared, const Tool& tool, int output, int error, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);
  ::setpgid(0, 0);
  EndSignals::restore_in_child();
  const int nothing = ::open("/dev/null", O_RDONLY);
  ::dup2(nothing, STDIN_FILENO);
  ::dup2(output, STDOUT_FILENO);
  ::dup2(error, STDERR_FILENO);
  if (!tool.directory.empty() && ::chdir(tool.directory.c_str()) != 0) ::_exit(127);
  ::execve(prepared.path.c_str(), prepared.arguments.data(), prepared.environment.data());
  ::_exit(127);
}

Result<Child> start(const Tool& tool, const Prepared& prepared) {
  int output[2], error[2];
  if (::pipe2(output, O_CLOEXEC) != 0) return fail_errno("making a pipe for {}", tool.command[0]);
  UniqueFd output_read{output[0]}, output_write{output[1]};
  if (::pipe2(error, O_CLOEXEC) != 0) return fail_errno("making a pipe for {}", tool.command[0]);
  UniqueFd error_read{error[0]}, error_write{error[1]};
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno("starting {}", tool.command[0]);
  if (pid == 0) be_the_tool(prepared, tool, output_write.get(), error_write.get(), parent);
  ::setpgid(pid, pid);  // the child does it too: whoever is first
  return Child{pid, std::move(output_read), std::move(error_read)};
}

// Appends what is there; false at the end of the stream. Keeps the first (`keep`) or the last `limit` bytes.
bool drain(int fd, std::string& into, std::size_t limit, bool keep_first) {
  char buffer[16384];
  const ssize_t size = ::read(fd, buffer, sizeof buffer);
  if (size < 0) return errno == EINTR || errno == EAGAIN;
  if (size == 0) return false;
  into.append(buffer, static_cast<std::size_t>(size));
  if (into.size() > limit) keep_first ? into.resize(limit) : void(into.erase(0, into.size() - limit));
  return true;
}

struct Finished {
  int status = 0;
  int ended_by = 0;  // the signal that made us end it
  std::string output, tail;
};

Finished attend(Child& child, const Tool& tool, Workshop& workshop) {
  Finished finished;
  HostClock clock;
  Nanoseconds asked = 0;
  bool output_open = true, error_open = true;
  while (output_open || error_open) {
    pollfd fds[3] = {{output_open ? child.output.get() : -1, POLLIN, 0},
                     {error_open ? child.error.get() : -1, POLLIN, 0},
                     {workshop.signals != nullptr && asked == 0 ? workshop.signals->fd() : -1, POLLIN, 0}};
    ::poll(fds, 3, kPollMs);
    workshop.progress.tick();
    if (fds[0].revents != 0) {
      output_open = tool.keep_output ? drain(child.output.get(), finished.output, kMaxOutput, true)
                                     : drain(child.output.get(), finished.tail, kTail, false);
    }
    if (fds[1].revents != 0) error_open = drain(child.error.get(), finished.tail, kTail, false);
    if (fds[2].revents != 0) {
      const int number = workshop.signals->next();
      if (number == 0 || number == SIGWINCH) continue;
      finished.ended_by = number;
      asked = clock.now();
      ::kill(-child.pid, SIGTERM);
    }
    if (asked != 0 && clock.now() - asked > kGrace) ::kill(-child.pid, SIGKILL);
  }
  while (::waitpid(child.pid, &finished.status, 0) < 0 && errno == EINTR) {
  }
  ::kill(-child.pid, SIGKILL);  // what it may have left behind
  return finished;
}

std::string last_lines(std::string_view text, unsigned lines) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  std::size_t start = text.size();
  while (start > 0 && lines > 0) {
    const std::size_t newline = text.rfind('\n', start - 1);
    start = newline == std::string_view::npos ? 0 : newline;
    --lines;
  }
  std::string out;
  for (const char c : text.substr(start)) {
    if (c == '\n' || c == '\r') {
      if (!out.empty() && !out.ends_with("; ")) out += "; ";
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

std::string find_tool(const std::string& name) {
  if (name.contains('/')) return ::access(name.c_str(), X_OK) == 0 ? name : std::string{};
  const char* const variable = ::getenv("PATH");
  const std::string path =
      std::string{variable != nullptr ? variable : "/usr/bin:/bin"} + ":/usr/local/sbin:/usr/sbin:/sbin";
  for (std::size_t start = 0; start <= path.size();) {
    const std::size_t end = std::min(path.find(':', start), path.size());
    const std::string candidate = path.substr(start, end - start) + "/" + name;
    if (end > start && ::access(candidate.c_str(), X_OK) == 0) return candidate;
    start = end + 1;
  }
  return {};
}

Result<std::string> run_tool(const Tool& tool, Workshop& workshop) {
  std::string path = find_tool(tool.command.front());
  if (path.empty())
    return fail("{} is not installed on this host: install the package {}", tool.command.front(), tool.package);
  const Prepared prepared = prepare(tool, std::move(path));
  BH_ASSIGN(Child child, start(tool, prepared));
  Finished finished = attend(child, tool, workshop);
  if (finished.ended_by != 0) return fail("interrupted while running {}", tool.command.front());
  if (WIFEXITED(finished.status) && WEXITSTATUS(finished.status) == 0) return std::move(finished.output);
  const std::string how = WIFSIGNALED(finished.status) ? fmt::format("signal {}", WTERMSIG(finished.status))
                                                       : fmt::format("status {}", WEXITSTATUS(finished.status));
  return fail("{} failed with {}: {}", tool.command.front(), how, last_lines(finished.tail, 3));
}

}  // namespace bulkhead::zone
