#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>

#include "guest/agent/agent.h"

namespace bulkhead::agent {
namespace {

constexpr int kPipeSize = 256 * 1024;

struct Request {
  StartHeader header{};
  char *directory = nullptr, *user = nullptr;
  char* arguments[kMaxArguments + 1] = {};
  char* environment[kMaxEnvironment + 1] = {};
};
Request g_request;  // too large for the stack, and there is only one

bool read_request(std::span<char> bytes, Failure& failure) {
  StartReader reader{bytes};
  if (!reader.header(g_request.header)) return failed_plainly(failure, "the start request's header is malformed");
  char* const hostname = reader.next_string();
  g_request.directory = reader.next_string();
  g_request.user = reader.next_string();
  bool good = hostname != nullptr && g_request.directory != nullptr && g_request.user != nullptr;
  for (unsigned i = 0; good && i < g_request.header.arguments; ++i)
    good = (g_request.arguments[i] = reader.next_string()) != nullptr;
  for (unsigned i = 0; good && i < g_request.header.environment; ++i)
    good = (g_request.environment[i] = reader.next_string()) != nullptr;
  char* networks[kMaxNetworks] = {};
  for (unsigned i = 0; good && i < g_request.header.networks; ++i)
    good = (networks[i] = reader.next_string()) != nullptr;
  char* volumes[kMaxVolumes] = {};
  for (unsigned i = 0; good && i < g_request.header.volumes; ++i) good = (volumes[i] = reader.next_string()) != nullptr;
  if (!good || !reader.at_end()) return failed_plainly(failure, "the start request is malformed");
  const size_t length = strlen(hostname);
  if (length > 0) (void)!sethostname(hostname, length < kMaxHostname ? length : kMaxHostname);
  for (unsigned i = 0; i < g_request.header.volumes; ++i)  // the command cannot do without what it was to have
    if (!bind_volume(volumes[i], failure)) return false;
  for (unsigned i = 0; i < g_request.header.networks; ++i) {
    Failure this_one;  // the command may do without it
    if (!configure_network(networks[i], this_one)) complain(this_one);
  }
  if (g_request.header.networks > 0) write_names(hostname);
  return true;
}

struct Plumbing {
  int input[2] = {-1, -1}, output[2] = {-1, -1}, error[2] = {-1, -1};  // read end, write end
  int terminal = -1, terminal_side = -1;                               // our end, the command's end
  int report[2] = {-1, -1};                                            // closed by a successful execve
};

bool open_terminal(Plumbing& plumbing, Failure& failure) {
  plumbing.terminal = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
  int unlock = 0, number = 0;
  if (plumbing.terminal < 0 || ioctl(plumbing.terminal, TIOCSPTLCK, &unlock) != 0 ||
      ioctl(plumbing.terminal, TIOCGPTN, &number) != 0)
    return failed(failure, "making a pseudo terminal");
  char path[32];
  snprintf(path, sizeof path, "/dev/pts/%d", number);
  plumbing.terminal_side = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (plumbing.terminal_side < 0) return failed(failure, "opening %s", path);
  const winsize size{g_request.header.rows, g_request.header.columns, 0, 0};
  if (size.ws_col != 0) ioctl(plumbing.terminal, TIOCSWINSZ, &size);
  return true;
}

bool open_plumbing(Plumbing& plumbing, Failure& failure) {
  if (pipe2(plumbing.report, O_CLOEXEC) != 0) return failed(failure, "making a pipe");
  if ((g_request.header.flags & kFlagTerminal) != 0) return open_terminal(plumbing, failure);
  for (int(*pair)[2] : {&plumbing.input, &plumbing.output, &plumbing.error}) {
    if (pipe2(*pair, O_CLOEXEC) != 0) return failed(failure, "making a pipe");
    fcntl((*pair)[0], F_SETPIPE_SZ, kPipeSize);
  }
  return true;
}

// In the child from here on.
void reset_signals() {
  for (int signal_number = 1; signal_number < NSIG; ++signal_number) signal(signal_number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

void connect_standard_streams(const Plumbing& plumbing) {
  setsid();
  if (plumbing.terminal_side >= 0) {
    ioctl(plumbing.terminal_side, TIOCSCTTY, 0);
    for (int fd = 0; fd < 3; ++fd) dup2(plumbing.terminal_side, fd);
    return;
  }
  dup2(plumbing.input[0], 0);
  dup2(plumbing.output[1], 1);
  dup2(plumbing.error[1], 2);
}

// As execvpe(), but never hands a file of unknown format to a shell: that is "not executable", 126.
int execute(char** arguments, char** environment) {
  const char* const name = arguments[0];
  if (name[0] == 0) return ENOENT;
  if (strchr(name, '/') != nullptr) {
    execve(name, arguments, environment);
    return errno;
  }
  const char* path = "";
  for (char** variable = environment; *variable != nullptr; ++variable)
    if (strncmp(*variable, "PATH=", 5) == 0) path = *variable + 5;
  int error = ENOENT;
  while (true) {
    const size_t length = strcspn(path, ":");
    char candidate[4096];
    snprintf(candidate, sizeof candidate, "%.*s%s%s", static_cast<int>(length), path, length > 0 ? "/" : "./", name);
    execve(candidate, arguments, environment);
    if (errno != ENOENT && errno != ENOTDIR) error = errno;
    if (errno != ENOENT && errno != ENOTDIR && errno != EACCES) return error;
    if (path[length] == 0) return error;
    path += length + 1;
  }
}

// The last thing that needs root. False with errno.
bool become_user(const char* user) {
  if (*user == 0) return true;
  unsigned long ids[2 + kMaxGroups];
  unsigned count = 0;
  for (char* end = nullptr; *user != 0 && count < 2 + kMaxGroups; user = *end == ' ' ? end + 1 : end) {
    ids[count++] = strtoul(user, &end, 10);
    if (end == user) break;
  }
  errno = EINVAL;
  if (count < 2 || *user != 0) return false;
  gid_t groups[kMaxGroups];
  for (unsigned i = 2; i < count; ++i) groups[i - 2] = static_cast<gid_t>(ids[i]);
  return setgroups(count - 2, groups) == 0 && setgid(static_cast<gid_t>(ids[1])) == 0 &&
         setuid(static_cast<uid_t>(ids[0])) == 0;
}

struct ChildReport {
  FailStage stage;
  int error;
};

[[noreturn]] void be_the_command(const Plumbing& plumbing) {
  reset_signals();
  connect_standard_streams(plumbing);
  ChildReport report{FailStage::kZone, 0};
  // As root first: the folder's own way may be closed to the user, who is in it all the same.
  if (chdir(g_request.directory) != 0 || !become_user(g_request.user)) {
    report.error = errno;
  } else {
    report = {FailStage::kCommand, execute(g_request.arguments, g_request.environment)};
  }
  (void)!write(plumbing.report[1], &report, sizeof report);
  _exit(127);
}

void close_all(std::initializer_list<int> fds) {
  for (const int fd : fds)
    if (fd >= 0) close(fd);
}

}  // namespace

bool start_command(std::span<char> bytes, Command& command, FailStage& stage, Failure& failure) {
  stage = FailStage::kZone;
  Plumbing plumbing;
  if (!read_request(bytes, failure) || !open_plumbing(plumbing, failure)) return false;
  const pid_t child = fork();
  if (child < 0) return failed(failure, "starting a process");
  if (child == 0) be_the_command(plumbing);
  close_all({plumbing.input[0], plumbing.output[1], plumbing.error[1], plumbing.terminal_side, plumbing.report[1]});
  ChildReport report{};
  ssize_t size;
  do {
    size = read(plumbing.report[0], &report, sizeof report);
  } while (size < 0 && errno == EINTR);
  close(plumbing.report[0]);
  if (size == sizeof report) {
    waitpid(child, nullptr, 0);
    stage = report.stage;
    errno = report.error;
    return stage == FailStage::kZone ? failed(failure, "becoming the user and changing into %s", g_request.directory)
                                     : failed(failure, "running %.200s", g_request.arguments[0]);
  }
  command.pid = child;
  command.terminal = plumbing.terminal >= 0;
  command.input = command.terminal ? dup(plumbing.terminal) : plumbing.input[1];
  command.output = command.terminal ? plumbing.terminal : plumbing.output[0];
  command.error = plumbing.error[0];
  for (const int fd : {command.input, command.output, command.error}) {
    if (fd < 0) continue;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  }
  return true;
}

void resize_terminal(const Command& command, std::uint16_t columns, std::uint16_t rows) {
  if (!command.terminal || command.output < 0) return;
  const winsize size{rows, columns, 0, 0};
  ioctl(command.output, TIOCSWINSZ, &size);  // the kernel sends SIGWINCH
}

}  // namespace bulkhead::agent
