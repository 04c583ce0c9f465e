// What containerd is told about tasks: in order, again when it did not listen, and not for ever.
#pragma once
#include <deque>
#include <memory>
#include <string>

#include "container/event/loop.h"
#include "container/shim/flags.h"
#include "container/ttrpc/connection.h"

namespace bulkhead::container {

class Events {
 public:
  // Without a `ttrpc_address` events go through the publish program of `flags`, as containerd has it.
  Events(Loop& loop, const ShimFlags& flags, std::string ttrpc_address);
  ~Events();
  // `topic`: "/tasks/exit"; `type`: "containerd.events.TaskExit".
  void publish(const std::string& topic, const std::string& type, const google::protobuf::MessageLite& event);
  // Calls `done` when all is said, or `patience` is over.
  void finish(Nanoseconds patience, Loop::Work done);

 private:
  struct Waiting {
    std::string topic, type, payload;
    i64 seconds;
    i32 nanoseconds;
    unsigned tries = 0;
  };
  void next();
  void try_later();
  void told();
  void run_program(const Waiting& event);
  void program_ended();

  Loop& loop_;
  const ShimFlags& flags_;
  const std::string address_;
  std::shared_ptr<ttrpc::Connection> connection_;
  std::deque<Waiting> queue_;
  bool busy_ = false, losing_ = false;
  pid_t program_ = -1;
  UniqueFd program_fd_;
  Loop::Work finished_;
};

}  // namespace bulkhead::container
