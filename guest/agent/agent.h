// The agent's steps, in the order main.cc takes them. One thread, no heap of its own, no exceptions.
#pragma once
#include <poll.h>
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
// Into the kernel log, at a level that `quiet` still shows on the console.
void complain(const Failure& failure);

// mounts.cc
bool mount_early();                 // /proc, /sys, /dev of the initramfs
bool enter_root(Failure& failure);  // mounts /dev/vda as the command line says, makes it /
bool command_line_value(const char* name, char* out, unsigned size);  // "name=value" of the kernel command line
void settle_disks();                                                  // sync, and the root read-only

// modules.cc: what /bulkhead/modules lists, one path a line. Behind an & is a module whose loading waits for its
// devices: it goes on in a process of its own, which complains itself, and whoever needs the devices waits for them.
bool load_modules(Failure& failure);
void forget_modules();  // takes them out of the initramfs, and the list

// The byte stream to the monitor. Nothing here blocks.
class Port {
 public:
  // Fills `entry` for a poll() that wakes when one of `wanted` (POLLIN, POLLOUT) becomes possible. True: one is
  // already, so do not wait.
  virtual bool prepare(short wanted, pollfd& entry) = 0;
  // After the poll(): what of that is possible now.
  virtual short ready(const pollfd& entry) = 0;
  virtual ssize_t read(void* data, size_t size) = 0;  // both as the system calls
  virtual ssize_t write(const void* data, size_t size) = 0;

 protected:
  ~Port() = default;
};
// port.cc: the virtio console port of that name, or else Xen's; nullptr when neither appears within 10 s.
Port* open_port(const char* name);
// xen_port.cc: a channel by its directory below the zone's in xenstore; nullptr where the monitor does not listen, or
// modules are missing. At most two.
Port* open_xen_port(const char* directory);
// Waits until the disk at `path` can be opened, at most `milliseconds`.
bool wait_for_disk(const char* path, int milliseconds);

// network.cc: waits for the device that `network` (start_request.h) names and configures it. False: `failure` says why.
bool configure_network(char* network, Failure& failure);
// The name servers that configure_network() has heard of, and our own name, for the C library.
void write_names(const char* hostname);

// volumes.cc: mounts the host's files at kFilesPlace as the kernel command line says: "bulkhead.files=virtiofs", or
// "=channel" for fuse_channel.cc. True where there are none.
bool mount_files(Failure& failure);
// Binds one share to its place in the zone; `volume` as in volumes.h.
bool bind_volume(char* volume, Failure& failure);
// fuse_channel.cc: mounts a FUSE file system whose requests go to the monitor, by a thread of ours.
bool mount_channel_files(const char* place, Failure& failure);

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
void serve(Port& port, const Failure& root_failure);

[[noreturn]] void power_off();

}  // namespace bulkhead::agent
