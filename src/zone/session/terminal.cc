#include "zone/session/terminal.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace bulkhead::zone {
namespace {

// Waits until the pipe says "all is well" (a byte) or that we are gone (its end). Only async-signal-safe calls.
[[noreturn]] void keep_settings(int terminal, const termios& old, int pipe_end) {
  ::prctl(PR_SET_NAME, "bulkhead-tty");
  ::setpgid(0, 0);  // what is sent to our whole group must not reach it
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTTOU, SIGTSTP}) ::signal(number, SIG_IGN);
  // Nothing of ours but these two may stay open because of this process.
  const int high_terminal = ::fcntl(terminal, F_DUPFD, 10), high_pipe = ::fcntl(pipe_end, F_DUPFD, 10);
  ::dup2(high_terminal, 0);
  ::dup2(high_pipe, 1);
  ::close_range(2, ~0u, 0);
  char byte;
  ssize_t size;
  do {
    size = ::read(1, &byte, 1);
  } while (size < 0 && errno == EINTR);
  if (size == 0) ::tcsetattr(0, TCSANOW, &old);
  ::_exit(0);
}

}  // namespace

Result<RawTerminal> RawTerminal::enter(int fd) {
  termios old{};
  if (::tcgetattr(fd, &old) != 0) return fail_errno("reading the terminal's settings");
  RawTerminal raw{fd, old};
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno("making a pipe");
  const UniqueFd read_end{ends[0]};
  raw.keep_alive_ = UniqueFd{ends[1]};
  raw.helper_ = ::fork();
  if (raw.helper_ < 0) return fail_errno("starting the process that looks after the terminal");
  if (raw.helper_ == 0) keep_settings(fd, old, read_end.get());
  termios settings = old;
  ::cfmakeraw(&settings);
  if (::tcsetattr(fd, TCSANOW, &settings) != 0) return fail_errno("setting the terminal to raw mode");
  return raw;
}

RawTerminal::RawTerminal(RawTerminal&& other) noexcept
    : fd_{std::exchange(other.fd_, -1)},
      old_{other.old_},
      keep_alive_{std::move(other.keep_alive_)},
      helper_{std::exchange(other.helper_, -1)} {}

RawTerminal::~RawTerminal() {
  if (fd_ < 0) return;
  ::tcsetattr(fd_, TCSANOW, &old_);
  if (helper_ <= 0) return;
  const char all_is_well = 1;
  (void)!::write(keep_alive_.get(), &all_is_well, 1);
  keep_alive_.reset();
  while (::waitpid(helper_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

std::optional<device::TerminalSize> our_terminal_size() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    winsize size{};
    if (::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0)
      return device::TerminalSize{size.ws_col, size.ws_row};
  }
  return std::nullopt;
}

}  // namespace bulkhead::zone
