// The task service of one pod [containerd "Runtime v2"]: every call that containerd makes, each answered when it is
// done and none waited for.
#pragma once
#include <map>
#include <memory>
#include <optional>

#include "container/shim/events.h"
#include "container/shim/pod.h"
#include "container/shim/share.h"
#include "container/shim/task.h"
#include "github.com/containerd/containerd/runtime/v2/task/shim.pb.h"

namespace bulkhead::container {

namespace v2 = containerd::task::v2;

class Service {
 public:
  // `log`: a descriptor for the monitor's words. `share` outlives us.
  Service(Loop& loop, const ShimFlags& flags, Share& share, Events& events, int log);
  void handle(const ttrpc::Call& call, ttrpc::Responder answer);

 private:
  using Answer = ttrpc::Responder;
  template <class Message>
  void with(const ttrpc::Call& call, Answer answer, void (Service::*method)(const Message&, Answer));

  // create.cc
  void create(const v2::CreateTaskRequest& request, Answer answer);
  void begin_container(const v2::CreateTaskRequest& request, Bundle bundle, Answer answer);
  void start_pod(const Bundle& bundle, Pod::Ready ready);
  void give_up(const std::string& id, const std::string& why, Answer answer);

  // service.cc
  void start(const v2::StartRequest& request, Answer answer);
  void exec(const v2::ExecProcessRequest& request, Answer answer);
  void remove(const v2::DeleteRequest& request, Answer answer);
  void finish_removal(const std::string& id, const std::string& exec, Answer answer);
  void state(const v2::StateRequest& request, Answer answer);
  void kill(const v2::KillRequest& request, Answer answer);
  void resize(const v2::ResizePtyRequest& request, Answer answer);
  void close_io(const v2::CloseIORequest& request, Answer answer);
  void wait(const v2::WaitRequest& request, Answer answer);
  void pids(const v2::PidsRequest& request, Answer answer);
  void pause(const v2::PauseRequest& request, Answer answer);
  void resume(const v2::ResumeRequest& request, Answer answer);
  void checkpoint(const v2::CheckpointTaskRequest& request, Answer answer);
  void update(const v2::UpdateTaskRequest& request, Answer answer);
  void stats(const v2::StatsRequest& request, Answer answer);
  void connect(const v2::ConnectRequest& request, Answer answer);
  void shutdown(const v2::ShutdownRequest& request, Answer answer);

  void freeze(const std::string& id, bool frozen, Answer answer);
  void watch_exit(TaskProcess& process);
  void exited(const std::string& id, const std::string& exec, u32 status);
  void tell_exit(const std::string& id, TaskProcess& process);
  void listen_for_events();
  void pod_died(const std::string& why);
  Task* find(const std::string& id, Answer& answer);
  TaskProcess* find(const std::string& id, const std::string& exec, Answer& answer);
  u32 pid() const { return static_cast<u32>(pod_ ? pod_->monitor() : 0); }

  Loop& loop_;
  const ShimFlags& flags_;
  Share& share_;
  Events& events_;
  const int log_;
  std::map<std::string, std::unique_ptr<Task>> tasks_;
  std::unique_ptr<Pod> pod_;
  bool pod_ready_ = false;
  unsigned events_heard_ = 0;
};

}  // namespace bulkhead::container
