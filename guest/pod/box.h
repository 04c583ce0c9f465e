// A container and its processes, as the agent holds them.
#pragma once
#include <sys/inotify.h>
#include <unistd.h>

#include <utility>

#include "guest/pod/pod.h"

namespace bulkhead::pod {

using CallNumber = std::uint32_t;  // of a call that waits for its answer; 0: none

class Fd {
 public:
  explicit Fd(int fd = -1) : fd_{fd} {}
  Fd(Fd&& other) noexcept : fd_{std::exchange(other.fd_, -1)} {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd() { reset(); }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void reset() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }

 private:
  int fd_;
};

struct Output {
  struct Reader {
    CallNumber call;
    std::uint32_t size;
  };
  Fd fd;
  bool hung_up = false;  // a terminal that nobody has open at the moment
  std::deque<Reader> readers;
};

struct Writing {
  CallNumber call;
  std::string data;
  std::size_t done = 0;
};

struct Running {
  enum class State : std::uint8_t { kNew, kPreparing, kCreated, kStarting, kRunning, kEnded };
  State state = State::kNew;
  bool first = false;  // the container's
  Process spec;
  pid_t pid = -1;
  Fd pidfd, control, input;
  Output outputs[2];
  bool close_input = false;  // when all is written
  std::deque<Writing> writing;
  CallNumber creating = 0, starting = 0;
  std::vector<CallNumber> waiting;
  std::uint32_t status = 0;
};

struct Box {
  Container spec;
  std::string cgroup;
  Fd pid_namespace, ipc_namespace, uts_namespace;
  int oom_watch = -1;
  std::uint64_t oom_kills = 0;
  std::map<std::string, std::unique_ptr<Running>> processes;  // "": the first
};

// spawn.cc: a child with its streams, in its PID namespace. `pid_namespace`: to be born into, or -1.
bool spawn(const Box& box, Running& process, bool own_pid_namespace, int pid_namespace, const Namespaces& joined,
           std::string& problem);

}  // namespace bulkhead::pod
