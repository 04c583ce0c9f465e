// The agent's steps, in the order main.cc takes them. One thread, no heap of its own, no exceptions.
#pragma once
#include <sys/types.h>

#include <cstdint>

#include "guest/agent/start_request.h"

namespace bulkhead::agent {

// What went wrong, for a kFailed frame or the kernel log. `error` is an errno or 0.
struct Failure {
  char text[kMaxText] = {};
  int error = 0;
};
// Fills `failure` from a printf format and the current errno; returns false, so that steps can `return failed(...)`.
[[gnu::format(printf, 2, 3)]] bool failed(Failure& failure, const char* format, ...);
// The same with no errno behind it.
[[gnu::format(printf, 2, 3)]] bool failed_plainly(Failure& failure, const char* format, ...);

// mounts.cc
bool mount_early();                 // /proc, /sys, /dev of the initramfs
bool enter_root(Failure& failure);  // mounts /dev/vda as the command line says, makes it /
bool command_line_value(const char* name, char* out, unsigned size);  // "name=value" of the kernel command line
void settle_disks();                                                  // sync, and the root read-only

// modules.cc: loads what /bulkhead/modules lists, one path a line.
bool load_modules(Failure& failure);

// port.cc: the console port of that name, opened without blocking; -1 when it does not appear within 10 s.
int open_port(const char* name);
// Waits until `path` exists, at most `milliseconds`.
bool wait_for_path(const char* path, int milliseconds);

// command.cc
struct Command {
  pid_t pid = -1;
  int input = -1, output = -1, error = -1;  // our ends; a terminal is both input and output
  bool terminal = false;
};
// Starts what `request` describes. False: `stage` and `failure` say why.
bool start_command(std::span<char> request, Command& command, FailStage& stage, Failure& failure);
void resize_terminal(const Command& command, std::uint16_t columns, std::uint16_t rows);

// session.cc: serves the monitor until the command has ended and all has been said. `root_failure` is reported instead
// of starting anything when its text is not empty.
void serve(int port, const Failure& root_failure);

[[noreturn]] void power_off();

}  // namespace bulkhead::agent
