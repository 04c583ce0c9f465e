#include "guest/pod/agent.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>

namespace bulkhead::pod {
namespace {

constexpr std::uint32_t kMaxRead = 64 * 1024;
constexpr char kEndOfTransmission = 4;
constexpr int kTickMs = 100;

}  // namespace

Agent::Agent() {
  sigset_t child_signal;
  sigemptyset(&child_signal);
  sigaddset(&child_signal, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child_signal, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  children_ = Fd{signalfd(-1, &child_signal, SFD_NONBLOCK | SFD_CLOEXEC)};
  oom_ = Fd{inotify_init1(IN_NONBLOCK | IN_CLOEXEC)};
  for (const int fd : {0, 1}) fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

void Agent::run() {
  while (!over_) step();
}

void Agent::read_calls() {
  static char piece[64 * 1024];
  const ssize_t size = ::read(0, piece, sizeof piece);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (size <= 0) {
    over_ = true;
    return;
  }
  reader_.feed({piece, static_cast<std::size_t>(size)}, [this](const ttrpc::Frame& frame) {
    dispatch(frame);
    return true;
  });
}

void Agent::write_answers() {
  const ssize_t size = ::write(1, outgoing_.data(), outgoing_.size());
  if (size > 0) outgoing_.erase(0, static_cast<std::size_t>(size));
  if (size < 0 && errno != EAGAIN && errno != EINTR) over_ = true;
}

void Agent::step() {
  struct Watched {
    Box* box;
    Running* process;
    Output* output;
  };
  std::vector<pollfd> fds = {{0, POLLIN, 0},
                             {1, static_cast<short>(outgoing_.empty() ? 0 : POLLOUT), 0},
                             {children_.get(), POLLIN, 0},
                             {oom_.get(), POLLIN, 0}};
  std::vector<Watched> watched(fds.size());
  bool tick = false;
  const auto watch = [&](const Fd& fd, short events, Box& box, Running& process, Output* output) {
    fds.push_back({fd.get(), events, 0});
    watched.push_back({&box, &process, output});
  };
  for (const auto& [name, box] : boxes_) {
    for (const auto& [exec, process] : box->processes) {
      if (process->control) watch(process->control, POLLIN, *box, *process, nullptr);
      if (!process->writing.empty() && process->input) watch(process->input, POLLOUT, *box, *process, nullptr);
      for (Output& output : process->outputs) {
        if (output.readers.empty() || !output.fd) continue;
        tick |= output.hung_up;
        if (!std::exchange(output.hung_up, false)) watch(output.fd, POLLIN, *box, *process, &output);
      }
    }
  }
  if (poll(fds.data(), fds.size(), tick ? kTickMs : -1) < 0) return;
  // Only what belongs to processes first: nothing here removes one.
  for (std::size_t i = 4; i < fds.size(); ++i) {
    if (fds[i].revents == 0) continue;
    Running& process = *watched[i].process;
    if (watched[i].output != nullptr) {
      pass_output(process, *watched[i].output);
    } else if (fds[i].events == POLLOUT) {
      pass_input(process);
    }
  }
  std::vector<std::pair<Box*, Running*>> speaking;
  for (std::size_t i = 4; i < fds.size(); ++i)
    if (fds[i].revents != 0 && watched[i].output == nullptr && fds[i].events == POLLIN)
      speaking.emplace_back(watched[i].box, watched[i].process);
  for (const auto& [box, process] : speaking) look_at_control(*box, *process);
  if (fds[3].revents != 0) {
    char ignored[4096];
    while (::read(oom_.get(), ignored, sizeof ignored) > 0) {
    }
    for (const auto& [name, box] : boxes_) look_for_oom(*box);
  }
  if (fds[2].revents != 0) reap();
  if ((fds[0].revents & (POLLIN | POLLHUP | POLLERR)) != 0) read_calls();
  if (!outgoing_.empty()) write_answers();
}

// ---- children on their way

void Agent::look_at_control(Box& box, Running& process) {
  while (process.control) {
    ChildReport report{};
    int fd = -1;
    const ssize_t size = receive_report(process.control.get(), report, fd);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size == static_cast<ssize_t>(sizeof report)) {
      report.text[sizeof report.text - 1] = 0;
      child_says(box, process, report, fd);
      continue;
    }
    // The end: its program runs, or it is dead.
    process.control.reset();
    if (process.state == Running::State::kPreparing) return failed(box, process, "it ended while it was prepared");
    if (process.state != Running::State::kStarting) return;
    process.state = Running::State::kRunning;
    CreateResponse response;
    response.set_pid(static_cast<std::uint32_t>(process.pid));
    answer(std::exchange(process.starting, 0), response);
  }
}

void Agent::child_says(Box& box, Running& process, const ChildReport& report, int fd) {
  Fd passed{fd};
  switch (report.kind) {
    case ChildReport::kReady:
      return prepared(box, process);
    case ChildReport::kFailed:
      return failed(box, process, report.text);
    case ChildReport::kTerminal:
      if (!passed) return;
      process.input = Fd{fcntl(fd, F_DUPFD_CLOEXEC, 3)};
      fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);  // both have one file
      process.outputs[0].fd = std::move(passed);
      return;
  }
}

void Agent::prepared(Box& box, Running& process) {
  if (!process.first) {
    process.state = Running::State::kStarting;
    (void)!send(process.control.get(), "g", 1, MSG_NOSIGNAL);
    return;
  }
  process.state = Running::State::kCreated;
  const std::string folder = "/proc/" + std::to_string(process.pid) + "/ns/";
  box.pid_namespace = Fd{open((folder + "pid").c_str(), O_RDONLY | O_CLOEXEC)};
  box.ipc_namespace = Fd{open((folder + "ipc").c_str(), O_RDONLY | O_CLOEXEC)};
  box.uts_namespace = Fd{open((folder + "uts").c_str(), O_RDONLY | O_CLOEXEC)};
  CreateResponse response;
  response.set_pid(static_cast<std::uint32_t>(process.pid));
  answer(std::exchange(process.creating, 0), response);
}

void Agent::failed(Box& box, Running& process, const std::string& text) {
  process.control.reset();
  if (process.starting != 0) refuse(std::exchange(process.starting, 0), Code::kUnknown, text);
  if (process.creating == 0) return;  // its end will be seen
  refuse(std::exchange(process.creating, 0), Code::kUnknown, text);
  forget(box.spec.name());
}

// ---- streams

void Agent::pass_input(Running& process) {
  while (!process.writing.empty()) {
    Writing& first = process.writing.front();
    const ssize_t size = ::write(process.input.get(), first.data.data() + first.done, first.data.size() - first.done);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size < 0) return end_input(process);
    first.done += static_cast<std::size_t>(size);
    if (first.done < first.data.size()) return;
    done(first.call);
    process.writing.pop_front();
  }
  if (process.close_input) end_input(process);
}

void Agent::end_input(Running& process) {
  for (const Writing& one : process.writing) refuse(one.call, Code::kPrecondition, "nobody reads the input");
  if (process.input && process.spec.terminal() && process.close_input && process.writing.empty())
    (void)!::write(process.input.get(), &kEndOfTransmission, 1);
  process.writing.clear();
  process.input.reset();
}

void Agent::end_output(Output& output) {
  output.fd.reset();
  for (const Output::Reader& reader : output.readers) answer(reader.call, ReadResponse{});
  output.readers.clear();
}

void Agent::pass_output(Running& process, Output& output) {
  static char piece[kMaxRead];
  while (output.fd && !output.readers.empty()) {
    const Output::Reader reader = output.readers.front();
    const ssize_t size = ::read(output.fd.get(), piece, std::min(reader.size, kMaxRead));
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size > 0) {
      ReadResponse response;
      response.set_data(piece, static_cast<std::size_t>(size));
      answer(reader.call, response);
      output.readers.pop_front();
      continue;
    }
    // A terminal reads as EIO whenever nobody has it open; the process may open it again.
    if (size < 0 && process.spec.terminal() && process.state != Running::State::kEnded) {
      output.hung_up = true;
      return;
    }
    end_output(output);
  }
}

// ---- ends

void Agent::reap() {
  signalfd_siginfo ignored;
  while (::read(children_.get(), &ignored, sizeof ignored) > 0) {
  }
  int status = 0;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    for (const auto& [name, box] : boxes_) {
      const auto found =
          std::ranges::find_if(box->processes, [&](const auto& entry) { return entry.second->pid == pid; });
      if (found == box->processes.end()) continue;
      ended(*box, *found->second, status);
      break;
    }
  }
}

void Agent::ended(Box& box, Running& process, int status) {
  look_at_control(box, process);  // what it said last
  if (!boxes_.contains(box.spec.name())) return;
  process.state = Running::State::kEnded;
  process.pid = -1;
  process.status = static_cast<std::uint32_t>(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
  // A container ends with its first process, also where its PIDs are not its own.
  if (process.first) write_file(box.cgroup + "/cgroup.kill", "1");
  look_for_oom(box);  // before its end is told
  end_input(process);
  for (Output& output : process.outputs) output.hung_up = false;
  WaitResponse response;
  response.set_status(process.status);
  for (const CallNumber call : std::exchange(process.waiting, {})) answer(call, response);
}

void Agent::look_for_oom(Box& box) {
  const std::uint64_t kills = cgroup_number(box.cgroup, "memory.events", "oom_kill");
  if (kills <= box.oom_kills) return;
  box.oom_kills = kills;
  Event event;
  event.set_kind(Event::OUT_OF_MEMORY);
  event.set_container(box.spec.name());
  tell(event);
}

void Agent::tell(const Event& event) {
  constexpr std::size_t kMost = 256;
  if (event_call_ != 0) return answer(std::exchange(event_call_, 0), event);
  if (events_.size() < kMost) events_.push_back(event);
}

void Agent::forget(const std::string& container) {
  const auto found = boxes_.find(container);
  if (found == boxes_.end()) return;
  const std::unique_ptr<Box> box = std::move(found->second);
  boxes_.erase(found);
  if (box->oom_watch >= 0) inotify_rm_watch(oom_.get(), box->oom_watch);
  remove_cgroup(box->cgroup);
}

}  // namespace bulkhead::pod
