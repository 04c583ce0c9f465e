// A container and its processes, as containerd knows them.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "container/bundle/read_spec.h"
#include "container/shim/streams.h"

namespace bulkhead::container {

struct Moment {
  i64 seconds = 0;
  i32 nanoseconds = 0;
};
Moment now();

struct TaskProcess {
  enum class State : u8 { kMaking, kCreated, kRunning, kPaused, kStopped };
  State state = State::kMaking;
  pod::ProcessName name;
  StreamPaths paths;
  std::shared_ptr<Streams> streams;
  u32 exit_status = 0;
  Moment exited;
  bool exit_seen = false, exit_told = false, deleting = false;
  std::vector<ttrpc::Responder> waiting;
};

struct Task {
  std::string id, bundle;
  std::map<std::string, std::unique_ptr<TaskProcess>> processes;  // "": the first
  TaskProcess& first() { return *processes.at(""); }
};

}  // namespace bulkhead::container
