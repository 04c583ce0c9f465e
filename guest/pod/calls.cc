#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <termios.h>

#include <algorithm>
#include <cctype>
#include <cerrno>

#include "container/ttrpc/ttrpc.pb.h"
#include "guest/pod/agent.h"

namespace bulkhead::pod {
namespace {

constexpr std::size_t kMaxNotWritten = 1024 * 1024;  // of one process' input
constexpr int kFreezeMs = 2000;

bool sane_name(const std::string& name) {
  return !name.empty() && name.size() <= 128 && name[0] != '.' && std::ranges::all_of(name, [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
  });
}

std::vector<pid_t> processes_of(const std::string& cgroup) {
  std::vector<pid_t> out;
  std::string text;
  read_file(cgroup + "/cgroup.procs", text);
  for (const char* at = text.c_str(); *at != 0;) {
    char* end = nullptr;
    const long pid = strtol(at, &end, 10);
    if (end == at) break;
    if (pid > 0) out.push_back(static_cast<pid_t>(pid));
    at = end + (*end != 0);
  }
  return out;
}

}  // namespace

// ---- answers

void Agent::answer(CallNumber number, const google::protobuf::MessageLite& message) {
  ttrpc::wire::Response response;
  response.mutable_status();
  message.SerializeToString(response.mutable_payload());
  const std::string bytes = response.SerializeAsString();
  ttrpc::append_header(outgoing_, number, ttrpc::FrameType::kResponse, bytes.size());
  outgoing_ += bytes;
}

void Agent::refuse(CallNumber number, Code code, const std::string& text) {
  ttrpc::wire::Response response;
  response.mutable_status()->set_code(static_cast<int>(code));
  response.mutable_status()->set_message(text);
  const std::string bytes = response.SerializeAsString();
  ttrpc::append_header(outgoing_, number, ttrpc::FrameType::kResponse, bytes.size());
  outgoing_ += bytes;
}

template <class Message>
void Agent::call(CallNumber number, const std::string& payload, void (Agent::*method)(CallNumber, const Message&)) {
  Message message;
  if (!message.ParseFromString(payload)) return refuse(number, Code::kInvalid, "a malformed message");
  (this->*method)(number, message);
}

void Agent::dispatch(const ttrpc::Frame& frame) {
  if (frame.type != static_cast<std::uint8_t>(ttrpc::FrameType::kRequest)) return;
  ttrpc::wire::Request request;
  if (frame.too_large || !request.ParseFromArray(frame.message.data(), static_cast<int>(frame.message.size())) ||
      request.service() != kService)
    return refuse(frame.stream, Code::kInvalid, "a malformed request");
  const std::string& method = request.method();
  const std::string& payload = request.payload();
  if (!greeted_ && method != "Hello") return refuse(frame.stream, Code::kPrecondition, "Hello comes first");
  if (method == "Hello") return call(frame.stream, payload, &Agent::hello);
  if (method == "Create") return call(frame.stream, payload, &Agent::create);
  if (method == "Start") return call(frame.stream, payload, &Agent::start);
  if (method == "Exec") return call(frame.stream, payload, &Agent::exec);
  if (method == "Signal") return call(frame.stream, payload, &Agent::signal);
  if (method == "Wait") return call(frame.stream, payload, &Agent::wait);
  if (method == "Read") return call(frame.stream, payload, &Agent::read);
  if (method == "Write") return call(frame.stream, payload, &Agent::write);
  if (method == "CloseInput") return call(frame.stream, payload, &Agent::close_input);
  if (method == "Resize") return call(frame.stream, payload, &Agent::resize);
  if (method == "Pids") return call(frame.stream, payload, &Agent::pids);
  if (method == "Pause") return call(frame.stream, payload, &Agent::pause);
  if (method == "Resume") return call(frame.stream, payload, &Agent::resume);
  if (method == "Update") return call(frame.stream, payload, &Agent::update);
  if (method == "Statistics") return call(frame.stream, payload, &Agent::statistics);
  if (method == "Delete") return call(frame.stream, payload, &Agent::remove);
  if (method == "NextEvent") return call(frame.stream, payload, &Agent::next_event);
  if (method == "Settle") return call(frame.stream, payload, &Agent::settle);
  refuse(frame.stream, Code::kUnimplemented, "the agent has no method " + method);
}

Box* Agent::find_box(CallNumber number, const std::string& name) {
  const auto found = boxes_.find(name);
  if (found != boxes_.end()) return found->second.get();
  refuse(number, Code::kNotFound, "there is no container " + name);
  return nullptr;
}

Running* Agent::find(CallNumber number, const ProcessName& name) {
  Box* const box = find_box(number, name.container());
  if (box == nullptr) return nullptr;
  const auto found = box->processes.find(name.exec());
  if (found != box->processes.end()) return found->second.get();
  refuse(number, Code::kNotFound, "there is no process " + name.exec());
  return nullptr;
}

// ---- calls

void Agent::hello(CallNumber number, const HelloRequest& request) {
  if (request.newest() < kOldestVersion || request.oldest() > kNewestVersion)
    return refuse(number, Code::kPrecondition,
                  text_of("the zone's pod agent speaks versions %u to %u of its protocol, the shim %u to %u: they must "
                          "come from the same release of Bulkhead",
                          kOldestVersion, kNewestVersion, request.oldest(), request.newest()));
  greeted_ = true;
  HelloResponse response;
  response.set_version(std::min(request.newest(), kNewestVersion));
  utsname names{};
  uname(&names);
  response.set_kernel(names.release);
  answer(number, response);
}

bool Agent::joined(CallNumber number, const Container& request, int& pid, Namespaces& out) {
  const auto take = [&](const Namespace& wanted, Fd Box::* member, int& fd) {
    if (wanted.kind() != Namespace::CONTAINER) return true;
    const Box* const other = find_box(number, wanted.container());
    if (other != nullptr) fd = (other->*member).get();
    return other != nullptr;
  };
  return take(request.pid_namespace(), &Box::pid_namespace, pid) &&
         take(request.ipc_namespace(), &Box::ipc_namespace, out.ipc) &&
         take(request.uts_namespace(), &Box::uts_namespace, out.uts);
}

void Agent::create(CallNumber number, const Container& request) {
  if (!sane_name(request.name())) return refuse(number, Code::kInvalid, "no name for a container: " + request.name());
  if (boxes_.contains(request.name())) return refuse(number, Code::kExists, "there is a container " + request.name());
  int pid = -1;
  Namespaces namespaces;
  if (!joined(number, request, pid, namespaces)) return;
  auto owned = std::make_unique<Box>();
  Box& box = *owned;
  box.spec = request;
  box.cgroup = std::string{kCgroups} + "/" + request.name();
  auto process = std::make_unique<Running>();
  process->first = true;
  process->spec = request.process();
  process->creating = number;
  Running& first = *process;
  box.processes.emplace("", std::move(process));
  boxes_.emplace(request.name(), std::move(owned));
  std::string problem;
  if (make_cgroup(box.cgroup, problem) && apply_settings(box.cgroup, request.settings(), problem) &&
      spawn(box, first, request.pid_namespace().kind() == Namespace::OWN, pid, namespaces, problem)) {
    box.oom_watch = inotify_add_watch(oom_.get(), (box.cgroup + "/memory.events").c_str(), IN_MODIFY);
    return;
  }
  failed(box, first, problem);
}

void Agent::start(CallNumber number, const ProcessName& request) {
  Running* const process = find(number, request);
  if (process == nullptr) return;
  Box& box = *boxes_.at(request.container());
  if (process->first && process->state == Running::State::kCreated) {
    process->state = Running::State::kStarting;
    process->starting = number;
    (void)!send(process->control.get(), "g", 1, MSG_NOSIGNAL);
    return;
  }
  if (process->first || process->state != Running::State::kNew)
    return refuse(number, Code::kPrecondition, "the process was started already");
  const Running& container = *box.processes.at("");
  if (container.state == Running::State::kEnded) return refuse(number, Code::kPrecondition, "the container has ended");
  process->starting = number;
  std::string problem;
  if (!spawn(box, *process, false, box.pid_namespace.get(), {}, problem)) failed(box, *process, problem);
}

void Agent::exec(CallNumber number, const ExecRequest& request) {
  Box* const box = find_box(number, request.name().container());
  if (box == nullptr) return;
  if (!sane_name(request.name().exec())) return refuse(number, Code::kInvalid, "no name for a process");
  auto process = std::make_unique<Running>();
  process->spec = request.process();
  if (!box->processes.emplace(request.name().exec(), std::move(process)).second)
    return refuse(number, Code::kExists, "there is a process " + request.name().exec());
  done(number);
}

void Agent::signal(CallNumber number, const SignalRequest& request) {
  Running* const process = find(number, request.name());
  if (process == nullptr) return;
  const int what = static_cast<int>(request.signal());
  if (request.all() && process->first) {
    const std::string& cgroup = boxes_.at(request.name().container())->cgroup;
    if (what == SIGKILL) {
      write_file(cgroup + "/cgroup.kill", "1");
    } else {
      for (const pid_t pid : processes_of(cgroup)) kill(pid, what);
    }
    return done(number);
  }
  if (process->pid < 0) return refuse(number, Code::kNotFound, "process already finished");
  if (syscall(SYS_pidfd_send_signal, process->pidfd.get(), what, nullptr, 0) != 0)
    return refuse(number, errno == ESRCH ? Code::kNotFound : Code::kInvalid,
                  errno == ESRCH ? "process already finished" : errno_text("sending signal %d", what));
  done(number);
}

void Agent::wait(CallNumber number, const ProcessName& request) {
  Running* const process = find(number, request);
  if (process == nullptr) return;
  if (process->state != Running::State::kEnded) return process->waiting.push_back(number);
  WaitResponse response;
  response.set_status(process->status);
  answer(number, response);
}

void Agent::read(CallNumber number, const ReadRequest& request) {
  Running* const process = find(number, request.name());
  if (process == nullptr) return;
  if (request.stream() < 1 || request.stream() > 2 || request.size() == 0)
    return refuse(number, Code::kInvalid, "no such stream");
  Output& output = process->outputs[request.stream() - 1];
  if (!output.fd) return answer(number, ReadResponse{});
  output.readers.push_back({number, request.size()});
  pass_output(*process, output);
}

void Agent::write(CallNumber number, const WriteRequest& request) {
  Running* const process = find(number, request.name());
  if (process == nullptr) return;
  std::size_t waiting = 0;
  for (const Writing& one : process->writing) waiting += one.data.size();
  if (!process->input || process->close_input) return refuse(number, Code::kPrecondition, "nobody reads the input");
  if (waiting + request.data().size() > kMaxNotWritten)
    return refuse(number, Code::kPrecondition, "more input at a time than there is room for");
  process->writing.push_back({number, request.data(), 0});
  pass_input(*process);
}

void Agent::close_input(CallNumber number, const ProcessName& request) {
  Running* const process = find(number, request);
  if (process == nullptr) return;
  process->close_input = true;
  if (process->writing.empty()) end_input(*process);
  done(number);
}

void Agent::resize(CallNumber number, const ResizeRequest& request) {
  Running* const process = find(number, request.name());
  if (process == nullptr) return;
  const winsize size{static_cast<unsigned short>(request.rows()), static_cast<unsigned short>(request.columns()), 0, 0};
  if (process->spec.terminal() && process->outputs[0].fd) ioctl(process->outputs[0].fd.get(), TIOCSWINSZ, &size);
  done(number);
}

void Agent::pids(CallNumber number, const ProcessName& request) {
  const Box* const box = find_box(number, request.container());
  if (box == nullptr) return;
  PidsResponse response;
  for (const pid_t pid : processes_of(box->cgroup)) response.add_pids(static_cast<std::uint32_t>(pid));
  answer(number, response);
}

void Agent::freeze(CallNumber number, const std::string& container, bool frozen) {
  const Box* const box = find_box(number, container);
  if (box == nullptr) return;
  if (!write_file(box->cgroup + "/cgroup.freeze", frozen ? "1" : "0"))
    return refuse(number, Code::kUnknown, errno_text("writing cgroup.freeze"));
  for (int waited = 0; waited < kFreezeMs; ++waited) {
    if (cgroup_number(box->cgroup, "cgroup.events", "frozen") == (frozen ? 1 : 0)) return done(number);
    poll(nullptr, 0, 1);
  }
  refuse(number, Code::kUnknown, "the container's processes do not come to rest");
}

void Agent::pause(CallNumber number, const ProcessName& request) { freeze(number, request.container(), true); }
void Agent::resume(CallNumber number, const ProcessName& request) { freeze(number, request.container(), false); }

void Agent::update(CallNumber number, const UpdateRequest& request) {
  const Box* const box = find_box(number, request.container());
  if (box == nullptr) return;
  std::string problem;
  if (!apply_settings(box->cgroup, request.settings(), problem)) return refuse(number, Code::kInvalid, problem);
  done(number);
}

void Agent::statistics(CallNumber number, const ProcessName& request) {
  const Box* const box = find_box(number, request.container());
  if (box == nullptr) return;
  StatsResponse response;
  cgroup_statistics(box->cgroup, response);
  answer(number, response);
}

void Agent::remove(CallNumber number, const ProcessName& request) {
  Running* const process = find(number, request);
  if (process == nullptr) return;
  if (process->pid > 0) return refuse(number, Code::kPrecondition, "the process runs");
  for (Output& output : process->outputs) end_output(output);
  for (const CallNumber call : process->waiting) refuse(call, Code::kNotFound, "the process was deleted");
  Box& box = *boxes_.at(request.container());
  if (process->first) {
    for (const auto& [name, other] : box.processes)
      for (Output& output : other->outputs) end_output(output);
    forget(request.container());
  } else {
    box.processes.erase(request.exec());
  }
  done(number);
}

void Agent::next_event(CallNumber number, const Empty&) {
  if (event_call_ != 0) return refuse(number, Code::kPrecondition, "somebody waits for events already");
  event_call_ = number;
  if (events_.empty()) return;
  answer(std::exchange(event_call_, 0), events_.front());
  events_.pop_front();
}

void Agent::settle(CallNumber number, const Empty&) {
  sync();
  done(number);
}

}  // namespace bulkhead::pod
