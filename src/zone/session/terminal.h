// Our terminal in raw mode for as long as the object lives, and back again whatever happens to us: a helper process
// holds the old settings and puts them back if we die without doing so.
#pragma once
#include <sys/types.h>
#include <termios.h>

#include <optional>

#include "base/fd.h"
#include "base/result.h"
#include "device/console_backend.h"

namespace bulkhead::zone {

class RawTerminal {
 public:
  // Errors: `fd` is no terminal. Starts a process: call before threads exist.
  static Result<RawTerminal> enter(int fd);
  RawTerminal(RawTerminal&& other) noexcept;
  RawTerminal& operator=(RawTerminal&&) = delete;
  ~RawTerminal();

 private:
  RawTerminal(int fd, const termios& old) : fd_{fd}, old_{old} {}
  int fd_;
  termios old_;
  UniqueFd keep_alive_;  // closes when we die, which the helper sees
  pid_t helper_ = -1;
};

// Of the first of stdin, stdout, stderr that is a terminal.
std::optional<device::TerminalSize> our_terminal_size();

}  // namespace bulkhead::zone
