// The zone of a pod: the monitor's process and the connection to the pod agent in the zone.
#pragma once
#include <sys/types.h>

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "container/bundle/annotations.h"
#include "container/event/loop.h"
#include "container/ttrpc/connection.h"
#include "guest/pod/pod.pb.h"

namespace bulkhead::container {

struct PodConfig {
  ZoneWish wish;
  std::string name;          // of the zone
  std::string share;         // the folder with the pod's files
  std::string net_space;     // path of a network namespace; empty: no network
  std::string cgroups_path;  // of this host; may be empty
};

class Pod {
 public:
  using Ready = std::function<void(Result<void>)>;
  using Dead = std::function<void(const std::string& why)>;

  // `dead` is called once when the zone has gone after it was ready, and not after end().
  Pod(Loop& loop, int log, Dead dead) : loop_{loop}, log_{log}, dead_{std::move(dead)} {}
  ~Pod() { end(); }
  Pod(const Pod&) = delete;

  // `ready` once: when the agent has answered, or with why there is no zone.
  void start(const PodConfig& config, Ready ready);
  // The second half of it: greets the agent at the other end of `stream`.
  void greet(UniqueFd stream, Ready ready);
  // What the agent says when it refuses is cut short: it is the guest's.
  void call(const char* method, const google::protobuf::MessageLite& message, ttrpc::Connection::Done done);
  bool running() const { return monitor_ > 0; }
  pid_t monitor() const { return last_monitor_; }
  // Ends the monitor and waits for it; calls that wait are answered.
  void end();

 private:
  void stop_monitor();
  Result<UniqueFd> launch(const PodConfig& config);
  void agent_lost();
  void read_complaints();
  void monitor_ended();
  void not_ready(std::string why);
  std::string reason() const;

  Loop& loop_;
  const int log_;
  Dead dead_;
  Ready ready_;
  pid_t monitor_ = -1, last_monitor_ = 0;
  UniqueFd pidfd_, complaints_;
  u64 patience_ = 0;       // a timer of the loop's
  std::string complaint_;  // the end of what the monitor said on stderr
  std::shared_ptr<ttrpc::Connection> agent_;
  std::string cgroups_path_;
};

// The control group that a pod's monitor runs in, in every hierarchy that the host has.
void enter_host_cgroup(const std::string& path);  // the calling process
void remove_host_cgroup(const std::string& path);
// What the kubelet has allowed the pod: of the group above.
PodLimits host_limits(const std::string& path);

}  // namespace bulkhead::container
