#include "container/shim/service.h"

#include <signal.h>
#include <time.h>

#include "base/log.h"
#include "container/bundle/resources.h"
#include "container/shim/statistics.h"
#include "github.com/containerd/containerd/api/events/task.pb.h"

namespace bulkhead::container {
namespace {

namespace events = containerd::events;
using ttrpc::Code;
using State = TaskProcess::State;

// For somebody who reads: before the end is told, and before what is left is thrown away.
constexpr Nanoseconds kEndPatience = 300'000'000, kRemovalPatience = 10'000'000'000;
constexpr Nanoseconds kSettlePatience = 2'000'000'000;
constexpr Nanoseconds kEventPatience = 2'000'000'000;
constexpr unsigned kEventsAtOnce = 32;  // of a zone's; then it waits, for a guest may make them as it likes
constexpr Nanoseconds kEventPause = 1'000'000'000;
constexpr u32 kKilled = 128 + SIGKILL;

void set(google::protobuf::Timestamp& to, const Moment& moment) {
  to.set_seconds(moment.seconds);
  to.set_nanos(moment.nanoseconds);
}

// Answers a call of containerd's with what the agent said to one of ours, which has nothing in it.
ttrpc::Connection::Done pass_on(ttrpc::Responder answer) {
  return [held = std::make_shared<ttrpc::Responder>(std::move(answer))](const ttrpc::Answer& said) {
    if (said.good()) return held->answer(google::protobuf::Empty{});
    held->pass_on(said);
  };
}

}  // namespace

Moment now() {
  timespec time{};
  ::clock_gettime(CLOCK_REALTIME, &time);
  return {time.tv_sec, static_cast<i32>(time.tv_nsec)};
}

Service::Service(Loop& loop, const ShimFlags& flags, Share& share, Events& event_queue, int log)
    : loop_{loop}, flags_{flags}, share_{share}, events_{event_queue}, log_{log} {}

template <class Message>
void Service::with(const ttrpc::Call& call, Answer answer, void (Service::*method)(const Message&, Answer)) {
  Message message;
  if (!message.ParseFromString(call.payload)) return answer.refuse(Code::kInvalidArgument, "a malformed message");
  (this->*method)(message, std::move(answer));
}

void Service::handle(const ttrpc::Call& call, Answer answer) {
  if (call.service != "containerd.task.v2.Task")
    return answer.refuse(Code::kUnimplemented, "there is no service " + call.service);
  const auto is = [&](const char* name) { return call.method == name; };
  if (is("Create")) return with<v2::CreateTaskRequest>(call, std::move(answer), &Service::create);
  if (is("Start")) return with<v2::StartRequest>(call, std::move(answer), &Service::start);
  if (is("Delete")) return with<v2::DeleteRequest>(call, std::move(answer), &Service::remove);
  if (is("Exec")) return with<v2::ExecProcessRequest>(call, std::move(answer), &Service::exec);
  if (is("ResizePty")) return with<v2::ResizePtyRequest>(call, std::move(answer), &Service::resize);
  if (is("State")) return with<v2::StateRequest>(call, std::move(answer), &Service::state);
  if (is("Pause")) return with<v2::PauseRequest>(call, std::move(answer), &Service::pause);
  if (is("Resume")) return with<v2::ResumeRequest>(call, std::move(answer), &Service::resume);
  if (is("Kill")) return with<v2::KillRequest>(call, std::move(answer), &Service::kill);
  if (is("Pids")) return with<v2::PidsRequest>(call, std::move(answer), &Service::pids);
  if (is("CloseIO")) return with<v2::CloseIORequest>(call, std::move(answer), &Service::close_io);
  if (is("Checkpoint")) return with<v2::CheckpointTaskRequest>(call, std::move(answer), &Service::checkpoint);
  if (is("Connect")) return with<v2::ConnectRequest>(call, std::move(answer), &Service::connect);
  if (is("Stats")) return with<v2::StatsRequest>(call, std::move(answer), &Service::stats);
  if (is("Update")) return with<v2::UpdateTaskRequest>(call, std::move(answer), &Service::update);
  if (is("Wait")) return with<v2::WaitRequest>(call, std::move(answer), &Service::wait);
  if (is("Shutdown")) return with<v2::ShutdownRequest>(call, std::move(answer), &Service::shutdown);
  answer.refuse(Code::kUnimplemented, "the task service has no method " + call.method);
}

Task* Service::find(const std::string& id, Answer& answer) {
  if (const auto found = tasks_.find(id); found != tasks_.end()) return found->second.get();
  answer.refuse(Code::kNotFound, "there is no container " + id);
  return nullptr;
}

TaskProcess* Service::find(const std::string& id, const std::string& exec, Answer& answer) {
  Task* const task = find(id, answer);
  if (task == nullptr) return nullptr;
  if (const auto found = task->processes.find(exec); found != task->processes.end()) return found->second.get();
  answer.refuse(Code::kNotFound, fmt::format("the container {} has no process {}", id, exec));
  return nullptr;
}

// ---- the life of a process

void Service::start(const v2::StartRequest& request, Answer answer) {
  TaskProcess* const process = find(request.id(), request.exec_id(), answer);
  if (process == nullptr) return;
  if (process->state != State::kCreated)
    return answer.refuse(Code::kFailedPrecondition, "the process is not one that waits to be started");
  auto held = std::make_shared<Answer>(std::move(answer));
  pod_->call("Start", process->name,
             [this, held, id = request.id(), exec = request.exec_id()](const ttrpc::Answer& said) {
               Answer none{{}, 0};
               TaskProcess* const started = find(id, exec, none);
               if (started == nullptr) return;
               if (!said.good()) {
                 started->state = State::kStopped;
                 started->exit_status = said.code == Code::kUnavailable ? kKilled : 127;
                 started->exited = now();
                 started->exit_told = true;  // it never began
                 if (started->streams) started->streams->close();
                 return held->pass_on(said);
               }
               started->state = State::kRunning;
               started->streams->begin();
               if (exec.empty()) {
                 events::TaskStart event;
                 event.set_container_id(id);
                 event.set_pid(pid());
                 events_.publish("/tasks/start", "containerd.events.TaskStart", event);
               } else {
                 events::TaskExecStarted event;
                 event.set_container_id(id);
                 event.set_exec_id(exec);
                 event.set_pid(pid());
                 events_.publish("/tasks/exec-started", "containerd.events.TaskExecStarted", event);
                 watch_exit(*started);
               }
               v2::StartResponse response;
               response.set_pid(pid());
               held->answer(response);
             });
}

void Service::watch_exit(TaskProcess& process) {
  pod_->call("Wait", process.name,
             [this, id = process.name.container(), exec = process.name.exec()](const ttrpc::Answer& said) {
               pod::WaitResponse response;
               if (!said.good() || !response.ParseFromString(said.payload)) response.set_status(kKilled);
               exited(id, exec, response.status());
             });
}

// What a process has said comes before its end is told, for clients stop listening then; unless nobody listens.
void Service::exited(const std::string& id, const std::string& exec, u32 status) {
  Answer none{{}, 0};
  TaskProcess* const process = find(id, exec, none);
  if (process == nullptr || process->exit_seen || process->state == State::kStopped || process->state == State::kMaking)
    return;
  process->exit_seen = true;
  process->exit_status = status;
  process->exited = now();
  process->streams->drained(kEndPatience, [this, id, exec] {
    Answer unused{{}, 0};
    TaskProcess* const ended = find(id, exec, unused);
    if (ended == nullptr) return;
    ended->state = State::kStopped;
    tell_exit(id, *ended);
  });
}

void Service::tell_exit(const std::string& id, TaskProcess& process) {
  if (!std::exchange(process.exit_told, true)) {
    events::TaskExit event;
    event.set_container_id(id);
    event.set_id(process.name.exec().empty() ? id : process.name.exec());
    event.set_pid(pid());
    event.set_exit_status(process.exit_status);
    set(*event.mutable_exited_at(), process.exited);
    events_.publish("/tasks/exit", "containerd.events.TaskExit", event);
  }
  v2::WaitResponse response;
  response.set_exit_status(process.exit_status);
  set(*response.mutable_exited_at(), process.exited);
  for (Answer& waiting : process.waiting) waiting.answer(response);
  process.waiting.clear();
}

void Service::wait(const v2::WaitRequest& request, Answer answer) {
  TaskProcess* const process = find(request.id(), request.exec_id(), answer);
  if (process == nullptr) return;
  process->waiting.push_back(std::move(answer));
  if (process->state == State::kStopped) tell_exit(request.id(), *process);
}

void Service::exec(const v2::ExecProcessRequest& request, Answer answer) {
  Task* const task = find(request.id(), answer);
  if (task == nullptr) return;
  if (request.exec_id().empty() || task->processes.contains(request.exec_id()))
    return answer.refuse(Code::kAlreadyExists, "there is a process " + request.exec_id());
  if (!pod_ || !pod_ready_) return answer.refuse(Code::kFailedPrecondition, "the pod's zone has ended");
  auto spec = read_process(request.spec().value());
  if (!spec) return answer.refuse(Code::kInvalidArgument, spec.error().message);
  auto process = std::make_unique<TaskProcess>();
  process->name.set_container(request.id());
  process->name.set_exec(request.exec_id());
  process->paths = {request.stdin(), request.stdout(), request.stderr(), request.terminal()};
  auto streams = Streams::open(loop_, *pod_, process->name, process->paths);
  if (!streams) return answer.refuse(Code::kUnknown, streams.error().message);
  process->streams = std::move(*streams);
  pod::ExecRequest wanted;
  *wanted.mutable_name() = process->name;
  *wanted.mutable_process() = std::move(*spec);
  wanted.mutable_process()->set_terminal(request.terminal());
  wanted.mutable_process()->set_input(!request.stdin().empty());
  process->state = State::kCreated;
  task->processes.emplace(request.exec_id(), std::move(process));
  auto held = std::make_shared<Answer>(std::move(answer));
  pod_->call("Exec", wanted, [this, held, id = request.id(), exec = request.exec_id()](const ttrpc::Answer& said) {
    if (!said.good()) {
      if (const auto found = tasks_.find(id); found != tasks_.end()) found->second->processes.erase(exec);
      return held->pass_on(said);
    }
    events::TaskExecAdded event;
    event.set_container_id(id);
    event.set_exec_id(exec);
    events_.publish("/tasks/exec-added", "containerd.events.TaskExecAdded", event);
    held->answer(google::protobuf::Empty{});
  });
}

void Service::remove(const v2::DeleteRequest& request, Answer answer) {
  TaskProcess* const process = find(request.id(), request.exec_id(), answer);
  if (process == nullptr) return;
  if (process->state == State::kRunning || process->state == State::kPaused || process->state == State::kMaking)
    return answer.refuse(Code::kFailedPrecondition, "the process runs");
  if (process->state == State::kCreated && request.exec_id().empty())
    return answer.refuse(Code::kFailedPrecondition, "the container waits to be started: kill it first");
  if (std::exchange(process->deleting, true)) return answer.refuse(Code::kFailedPrecondition, "it is being deleted");
  // What it said last comes before its end.
  process->streams->drained(kRemovalPatience,
                            [this, held = std::make_shared<Answer>(std::move(answer)), id = request.id(),
                             exec = request.exec_id()] { finish_removal(id, exec, std::move(*held)); });
}

void Service::finish_removal(const std::string& id, const std::string& exec, Answer answer) {
  TaskProcess* const process = find(id, exec, answer);
  if (process == nullptr) return;
  process->streams->close();
  auto held = std::make_shared<Answer>(std::move(answer));
  pod_->call("Delete", process->name, [this, held, id, exec](const ttrpc::Answer&) {
    const auto found = tasks_.find(id);
    if (found == tasks_.end() || !found->second->processes.contains(exec)) return;
    const TaskProcess& gone = *found->second->processes.at(exec);
    v2::DeleteResponse response;
    response.set_pid(pid());
    response.set_exit_status(gone.exit_status);
    set(*response.mutable_exited_at(), gone.exited);
    if (exec.empty()) {
      events::TaskDelete event;
      event.set_container_id(id);
      event.set_pid(pid());
      event.set_exit_status(gone.exit_status);
      set(*event.mutable_exited_at(), gone.exited);
      events_.publish("/tasks/delete", "containerd.events.TaskDelete", event);
      share_.remove(id);
      tasks_.erase(found);
    } else {
      found->second->processes.erase(exec);
    }
    held->answer(response);
  });
}

void Service::state(const v2::StateRequest& request, Answer answer) {
  TaskProcess* const process = find(request.id(), request.exec_id(), answer);
  if (process == nullptr) return;
  namespace types = containerd::v1::types;
  v2::StateResponse response;
  response.set_id(request.id());
  response.set_exec_id(request.exec_id());
  response.set_bundle(tasks_.at(request.id())->bundle);
  response.set_pid(pid());
  switch (process->state) {
    case State::kMaking:
    case State::kCreated:
      response.set_status(types::CREATED);
      break;
    case State::kRunning:
      response.set_status(types::RUNNING);
      break;
    case State::kPaused:
      response.set_status(types::PAUSED);
      break;
    case State::kStopped:
      response.set_status(types::STOPPED);
      response.set_exit_status(process->exit_status);
      set(*response.mutable_exited_at(), process->exited);
      break;
  }
  response.set_stdin(process->paths.input);
  response.set_stdout(process->paths.output);
  response.set_stderr(process->paths.error);
  response.set_terminal(process->paths.terminal);
  answer.answer(response);
}

void Service::kill(const v2::KillRequest& request, Answer answer) {
  TaskProcess* const process = find(request.id(), request.exec_id(), answer);
  if (process == nullptr) return;
  if (process->state == State::kStopped) return answer.refuse(Code::kNotFound, "process already finished");
  if (process->state == State::kCreated && !request.exec_id().empty()) {
    process->state = State::kStopped;  // it never was there
    process->exit_status = 128 + request.signal();
    process->exited = now();
    tell_exit(request.id(), *process);
    return answer.answer(google::protobuf::Empty{});
  }
  pod::SignalRequest wanted;
  *wanted.mutable_name() = process->name;
  wanted.set_signal(request.signal());
  wanted.set_all(request.all());
  pod_->call("Signal", wanted, pass_on(std::move(answer)));
}

void Service::resize(const v2::ResizePtyRequest& request, Answer answer) {
  TaskProcess* const process = find(request.id(), request.exec_id(), answer);
  if (process == nullptr) return;
  pod::ResizeRequest wanted;
  *wanted.mutable_name() = process->name;
  wanted.set_columns(request.width());
  wanted.set_rows(request.height());
  pod_->call("Resize", wanted, pass_on(std::move(answer)));
}

void Service::close_io(const v2::CloseIORequest& request, Answer answer) {
  TaskProcess* const process = find(request.id(), request.exec_id(), answer);
  if (process == nullptr) return;
  if (request.stdin() && process->streams) process->streams->close_input();
  answer.answer(google::protobuf::Empty{});
}

void Service::pids(const v2::PidsRequest& request, Answer answer) {
  TaskProcess* const process = find(request.id(), "", answer);
  if (process == nullptr) return;
  auto held = std::make_shared<Answer>(std::move(answer));
  pod_->call("Pids", process->name, [held](const ttrpc::Answer& said) {
    pod::PidsResponse there;
    if (!said.good() || !there.ParseFromString(said.payload)) return held->pass_on(said);
    v2::PidsResponse response;
    for (const u32 pid : there.pids()) response.add_processes()->set_pid(pid);
    held->answer(response);
  });
}

void Service::freeze(const std::string& id, bool frozen, Answer answer) {
  TaskProcess* const process = find(id, "", answer);
  if (process == nullptr) return;
  if (process->state != (frozen ? State::kRunning : State::kPaused))
    return answer.refuse(Code::kFailedPrecondition,
                         frozen ? "the container does not run" : "the container is not paused");
  auto held = std::make_shared<Answer>(std::move(answer));
  pod_->call(frozen ? "Pause" : "Resume", process->name, [this, held, id, frozen](const ttrpc::Answer& said) {
    Answer none{{}, 0};
    TaskProcess* const changed = find(id, "", none);
    if (!said.good() || changed == nullptr) return held->pass_on(said);
    if (changed->state != State::kStopped) changed->state = frozen ? State::kPaused : State::kRunning;
    if (frozen) {
      events::TaskPaused event;
      event.set_container_id(id);
      events_.publish("/tasks/paused", "containerd.events.TaskPaused", event);
    } else {
      events::TaskResumed event;
      event.set_container_id(id);
      events_.publish("/tasks/resumed", "containerd.events.TaskResumed", event);
    }
    held->answer(google::protobuf::Empty{});
  });
}

void Service::pause(const v2::PauseRequest& request, Answer answer) { freeze(request.id(), true, std::move(answer)); }
void Service::resume(const v2::ResumeRequest& request, Answer answer) {
  freeze(request.id(), false, std::move(answer));
}

void Service::checkpoint(const v2::CheckpointTaskRequest&, Answer answer) {
  answer.refuse(Code::kUnimplemented,
                "checkpoint: a container in a zone cannot be checkpointed by itself; it has no process on this host");
}

void Service::update(const v2::UpdateTaskRequest& request, Answer answer) {
  TaskProcess* const process = find(request.id(), "", answer);
  if (process == nullptr) return;
  pod::UpdateRequest wanted;
  wanted.set_container(request.id());
  if (auto read = add_settings_from(request.resources().value(), *wanted.mutable_settings()); !read)
    return answer.refuse(Code::kInvalidArgument, read.error().message);
  pod_->call("Update", wanted, pass_on(std::move(answer)));
}

void Service::stats(const v2::StatsRequest& request, Answer answer) {
  TaskProcess* const process = find(request.id(), "", answer);
  if (process == nullptr) return;
  auto held = std::make_shared<Answer>(std::move(answer));
  pod_->call("Statistics", process->name, [held](const ttrpc::Answer& said) {
    pod::StatsResponse numbers;
    if (!said.good() || !numbers.ParseFromString(said.payload)) return held->pass_on(said);
    v2::StatsResponse response;
    response.mutable_stats()->set_type_url("io.containerd.cgroups.v2.Metrics");
    response.mutable_stats()->set_value(metrics_of(numbers));
    held->answer(response);
  });
}

void Service::connect(const v2::ConnectRequest& request, Answer answer) {
  if (find(request.id(), answer) == nullptr) return;
  v2::ConnectResponse response;
  response.set_shim_pid(static_cast<u32>(::getpid()));
  response.set_task_pid(pid());
  answer.answer(response);
}

void Service::shutdown(const v2::ShutdownRequest& request, Answer answer) {
  // containerd asks after every container; the pod goes with its last.
  if (!tasks_.empty() && !request.now()) return answer.answer(google::protobuf::Empty{});
  auto held = std::make_shared<Answer>(std::move(answer));
  const auto end = [this, held, done = std::make_shared<bool>(false)] {
    if (std::exchange(*done, true)) return;
    if (pod_) pod_->end();
    held->answer(google::protobuf::Empty{});
    events_.finish(kEventPatience, [this] { loop_.after(1'000'000, [this] { loop_.stop(); }); });
  };
  if (!pod_ || !pod_ready_) return end();
  loop_.after(kSettlePatience, end);
  pod_->call("Settle", pod::Empty{}, [end](const ttrpc::Answer&) { end(); });
}

// ---- the zone

void Service::listen_for_events() {
  pod_->call("NextEvent", pod::Empty{}, [this](const ttrpc::Answer& said) {
    pod::Event event;
    if (!said.good() || !event.ParseFromString(said.payload)) return;
    if (event.kind() == pod::Event::OUT_OF_MEMORY && tasks_.contains(event.container())) {
      events::TaskOOM oom;
      oom.set_container_id(event.container());
      events_.publish("/tasks/oom", "containerd.events.TaskOOM", oom);
    }
    if (++events_heard_ % kEventsAtOnce != 0) return listen_for_events();
    loop_.after(kEventPause, [this] {
      if (pod_ready_) listen_for_events();
    });
  });
}

void Service::pod_died(const std::string& why) {
  pod_ready_ = false;
  log_warning("the pod's zone has ended: {}", why);
  for (const auto& [id, task] : tasks_)
    for (const auto& [exec, process] : task->processes) exited(id, exec, kKilled);
}

}  // namespace bulkhead::container
