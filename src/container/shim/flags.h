// How containerd calls a shim [containerd "Runtime v2"].
#pragma once
#include <string>
#include <vector>

#include "base/result.h"

namespace bulkhead::container {

struct ShimFlags {
  std::string space;            // -namespace
  std::string address;          // -address: containerd's socket
  std::string publish_program;  // -publish-binary
  std::string id;               // -id: the container
  std::string bundle;           // -bundle; empty: the working directory
  std::string action;           // start, delete; ours: serve
  bool version = false;         // -v
};

// Errors: name the flag.
Result<ShimFlags> parse_flags(const std::vector<std::string>& arguments);

// Where the server of a pod listens: the same for every container of the pod.
std::string server_socket(const ShimFlags& flags, const std::string& pod);

// The name of the pod's zone, as `bulkhead zone list` shows it.
std::string zone_name(const ShimFlags& flags, const std::string& pod);

inline constexpr char kRuntimeFolder[] = "/run/bulkhead";  // sockets, and the place where pods' files are mounted

}  // namespace bulkhead::container
