#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "guest/pod/box.h"

namespace bulkhead::pod {
namespace {

constexpr int kPipeSize = 256 * 1024;

struct Pipe {
  Fd read_end, write_end;
  bool open() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return false;
    read_end = Fd{ends[0]};
    write_end = Fd{ends[1]};
    fcntl(ends[1], F_SETPIPE_SZ, kPipeSize);
    return true;
  }
};

void never_block(const Fd& fd) { fcntl(fd.get(), F_SETFL, fcntl(fd.get(), F_GETFL) | O_NONBLOCK); }

// As fork(), into a namespace of its own if asked for, with a descriptor of the child.
pid_t clone_child(std::uint64_t flags, int& pidfd) {
  clone_args arguments{};
  arguments.flags = flags | CLONE_PIDFD;
  arguments.pidfd = reinterpret_cast<std::uintptr_t>(&pidfd);
  arguments.exit_signal = SIGCHLD;
  return static_cast<pid_t>(syscall(SYS_clone3, &arguments, sizeof arguments));
}

}  // namespace

bool spawn(const Box& box, Running& process, bool own_pid_namespace, int pid_namespace, const Namespaces& joined,
           std::string& problem) {
  Pipe input, output, error;
  int control[2];
  if (!input.open() || !output.open() || !error.open() ||
      socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) != 0) {
    problem = errno_text("making pipes");
    return false;
  }
  Fd ours{control[0]}, theirs{control[1]};
  if (!process.spec.input()) input.read_end = Fd{open("/dev/null", O_RDONLY | O_CLOEXEC)};
  const Fd own{open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC)};
  if (pid_namespace >= 0 && setns(pid_namespace, CLONE_NEWPID) != 0) {
    problem = errno_text("joining the pid namespace");
    return false;
  }
  int pidfd = -1;
  const pid_t child = clone_child(own_pid_namespace ? CLONE_NEWPID : 0, pidfd);
  if (child == 0) {
    const ChildEnds ends{theirs.get(), input.read_end.get(), output.write_end.get(), error.write_end.get()};
    ours.reset();
    if (process.first) become_container(box.spec, box.cgroup, joined, ends);
    become_added_process(box.spec, process.spec, box.cgroup, box.processes.at("")->pidfd.get(), ends);
  }
  const int clone_error = errno;
  if (pid_namespace >= 0) setns(own.get(), CLONE_NEWPID);  // only future children are in it; this takes it back
  if (child < 0) {
    errno = clone_error;
    problem = errno_text("starting a process");
    return false;
  }
  process.pid = child;
  process.pidfd = Fd{pidfd};
  process.control = std::move(ours);
  if (!process.spec.terminal()) {
    if (process.spec.input()) process.input = std::move(input.write_end);
    process.outputs[0].fd = std::move(output.read_end);
    process.outputs[1].fd = std::move(error.read_end);
    if (process.input) never_block(process.input);
    for (Output& one : process.outputs) never_block(one.fd);
  }
  never_block(process.control);
  process.state = Running::State::kPreparing;
  return true;
}

}  // namespace bulkhead::pod
