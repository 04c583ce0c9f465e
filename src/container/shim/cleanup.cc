#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "container/bundle/read_spec.h"
#include "container/shim/actions.h"
#include "container/shim/pod.h"
#include "github.com/containerd/containerd/runtime/v2/task/shim.pb.h"
#include "zone/live/socket_place.h"

namespace bulkhead::container {
namespace {

// Whoever still serves the pod has been given up by containerd: its monitor and mounts go with it.
void end_server(const std::string& socket) {
  const auto connected = ttrpc::connect_to(socket);
  if (connected) {
    ucred peer{};
    socklen_t size = sizeof peer;
    if (::getsockopt(connected->get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.pid > 1)
      ::kill(peer.pid, SIGKILL);
  }
  ::unlink(socket.c_str());
}

// The monitor is killed with its shim, but takes a moment to be gone.
void wait_for_end(const std::string& zone) {
  for (int i = 0; i < 200 && zone::connect_to_zone(zone::socket_folder(), zone); ++i) ::usleep(20'000);
  zone::list_zones(zone::socket_folder());
}

}  // namespace

Result<void> delete_action(const ShimFlags& flags) {
  std::ifstream in{flags.bundle.empty() ? "config.json" : flags.bundle + "/config.json"};
  std::ostringstream text;
  text << in.rdbuf();
  const auto bundle = read_spec(std::move(text).str(), flags.id);
  // A container's own delete leaves the pod alone: it may live.
  const auto place = bundle ? bundle->role : Bundle::Role::kAlone;
  if (place != Bundle::Role::kMember) {
    end_server(server_socket(flags, flags.id));
    wait_for_end(zone_name(flags, flags.id));
    if (bundle) remove_host_cgroup(bundle->cgroups_path);
  }
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  containerd::task::v2::DeleteResponse response;
  response.set_exit_status(128 + SIGKILL);
  response.mutable_exited_at()->set_seconds(now.tv_sec);
  response.mutable_exited_at()->set_nanos(static_cast<i32>(now.tv_nsec));
  const std::string bytes = response.SerializeAsString();
  if (::write(STDOUT_FILENO, bytes.data(), bytes.size()) < 0) return fail_errno("telling how it ended");
  return {};
}

}  // namespace bulkhead::container
