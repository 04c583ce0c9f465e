// A container's config.json [oci-runtime "Configuration"], judged, and what of it the host does and what the agent.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "container/bundle/annotations.h"
#include "guest/pod/pod.pb.h"

namespace bulkhead::container {

// Something of the host's that the container sees: put into the zone's folder of shared files under `place`.
struct SharedPath {
  std::string source;  // absolute, on the host
  std::string place;   // "CONTAINER/mount-3"
};

struct Bundle {
  pod::Container container;  // complete, but for the seccomp program of added processes, which is the container's
  std::vector<SharedPath> shared;
  std::string root;  // the bundle's root path; absolute, or from the bundle
  Annotations annotations;
  enum class Role : u8 { kAlone, kSandbox, kMember } role = Role::kAlone;
  std::string sandbox;                   // with kMember: whose zone it goes into
  std::optional<std::string> net_space;  // the network namespace's path; empty: none was made
  std::string cgroups_path;              // of the host; may be empty
  PodLimits limits;                      // of this container alone
};

// What of annotations decides where a container goes, without reading the rest.
struct Place {
  Bundle::Role role = Bundle::Role::kAlone;
  std::string sandbox;
};
Result<Place> read_place(const std::string& text);

// Errors: one line that names the field; also what a zone does not do (the host's network, user namespaces).
Result<Bundle> read_spec(const std::string& text, const std::string& container);
// A process to be added: an OCI "process" object.
Result<pod::Process> read_process(const std::string& text);

}  // namespace bulkhead::container
