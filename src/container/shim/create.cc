// How a container comes to be: its bundle read, the pod's zone started if it is the first, its files shown to the zone,
// and the agent asked.
#include <algorithm>
#include <fstream>
#include <sstream>

#include "container/shim/service.h"
#include "github.com/containerd/containerd/api/events/task.pb.h"

namespace bulkhead::container {
namespace {

using ttrpc::Code;
using Role = Bundle::Role;
using State = TaskProcess::State;

Result<std::string> read_text(const std::string& path) {
  std::ifstream in{path};
  std::ostringstream out;
  out << in.rdbuf();
  if (!in) return fail("reading {}", path);
  return std::move(out).str();
}

PodLimits limits_for(const Bundle& bundle) {
  if (bundle.role == Role::kAlone) return bundle.limits;
  PodLimits out = limits_of(bundle.annotations);
  const PodLimits host = host_limits(bundle.cgroups_path);
  if (!out.memory) out.memory = host.memory;
  if (!out.cpus) out.cpus = host.cpus;
  return out;
}

std::vector<MountSpec> mounts_of(const v2::CreateTaskRequest& request) {
  std::vector<MountSpec> out;
  for (const auto& mount : request.rootfs())
    out.push_back({mount.type(), mount.source(), {mount.options().begin(), mount.options().end()}});
  return out;
}

}  // namespace

void Service::create(const v2::CreateTaskRequest& request, Answer answer) {
  const std::string& id = request.id();
  if (tasks_.contains(id)) return answer.refuse(Code::kAlreadyExists, "there is a container " + id);
  if (!request.checkpoint().empty())
    return answer.refuse(Code::kUnimplemented, "a container cannot be restored from a checkpoint in a zone");
  const auto text = read_text(request.bundle() + "/config.json");
  if (!text) return answer.refuse(Code::kUnknown, text.error().message);
  auto bundle = read_spec(*text, id);
  if (!bundle) return answer.refuse(Code::kInvalidArgument, bundle.error().message);
  const bool member = bundle->role == Role::kMember;
  if (member && !pod_ready_) return answer.refuse(Code::kFailedPrecondition, "the pod's zone has ended");
  if (!member && pod_) return answer.refuse(Code::kAlreadyExists, "this shim has a pod already");

  auto task = std::make_unique<Task>();
  task->id = id;
  task->bundle = request.bundle();
  auto first = std::make_unique<TaskProcess>();
  first->name.set_container(id);
  first->paths = {request.stdin(), request.stdout(), request.stderr(), request.terminal()};
  task->processes.emplace("", std::move(first));
  tasks_.emplace(id, std::move(task));
  if (member) return begin_container(request, std::move(*bundle), std::move(answer));
  auto held = std::make_shared<Answer>(std::move(answer));
  const Bundle& whole = *bundle;
  start_pod(whole, [this, request, held, kept = std::make_shared<Bundle>(whole)](Result<void> started) {
    if (!started) return give_up(request.id(), started.error().message, std::move(*held));
    pod_ready_ = true;
    listen_for_events();
    begin_container(request, std::move(*kept), std::move(*held));
  });
}

void Service::start_pod(const Bundle& bundle, Pod::Ready ready) {
  auto wish = zone_wish(bundle.annotations, limits_for(bundle));
  if (!wish) return ready(std::unexpected(std::move(wish.error())));
  PodConfig config{*wish, zone_name(flags_, bundle.container.name()), share_.folder(), bundle.net_space.value_or(""),
                   bundle.cgroups_path};
  pod_ = std::make_unique<Pod>(loop_, log_, [this](const std::string& why) { pod_died(why); });
  pod_->start(config, std::move(ready));
}

void Service::give_up(const std::string& id, const std::string& why, Answer answer) {
  share_.remove(id);
  if (const auto found = tasks_.find(id); found != tasks_.end()) {
    if (found->second->first().streams) found->second->first().streams->close();
    for (Answer& waiting : found->second->first().waiting) waiting.refuse(Code::kNotFound, why);
    tasks_.erase(found);
  }
  answer.refuse(Code::kUnknown, why);
  if (!tasks_.empty() || !pod_) return;
  pod_ready_ = false;
  pod_->end();
}

void Service::begin_container(const v2::CreateTaskRequest& request, Bundle bundle, Answer answer) {
  const std::string& id = request.id();
  const std::string root = bundle.root.starts_with('/') ? bundle.root : request.bundle() + "/" + bundle.root;
  if (auto added = share_.add(id, mounts_of(request), root, bundle.shared); !added)
    return give_up(id, added.error().message, std::move(answer));
  TaskProcess& first = tasks_.at(id)->first();
  auto streams = Streams::open(loop_, *pod_, first.name, first.paths);
  if (!streams) return give_up(id, streams.error().message, std::move(answer));
  first.streams = std::move(*streams);
  bundle.container.mutable_process()->set_terminal(request.terminal());
  bundle.container.mutable_process()->set_input(!request.stdin().empty());
  pod_->call("Create", bundle.container,
             [this, request, held = std::make_shared<Answer>(std::move(answer))](const ttrpc::Answer& said) {
               const auto found = tasks_.find(request.id());
               if (found == tasks_.end()) return;
               if (!said.good()) return give_up(request.id(), said.text, std::move(*held));
               TaskProcess& made = found->second->first();
               made.state = State::kCreated;
               watch_exit(made);
               containerd::events::TaskCreate event;
               event.set_container_id(request.id());
               event.set_bundle(request.bundle());
               *event.mutable_rootfs() = request.rootfs();
               event.mutable_io()->set_stdin(request.stdin());
               event.mutable_io()->set_stdout(request.stdout());
               event.mutable_io()->set_stderr(request.stderr());
               event.mutable_io()->set_terminal(request.terminal());
               event.set_pid(pid());
               events_.publish("/tasks/create", "containerd.events.TaskCreate", event);
               v2::CreateTaskResponse response;
               response.set_pid(pid());
               held->answer(response);
             });
}

}  // namespace bulkhead::container
