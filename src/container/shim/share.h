// The folder through which a pod's zone sees its containers' root file systems and volumes. It lies on a file system in
// memory that is mounted in a namespace of the shim's own, so nothing of it is there when the shim is gone, however it
// went. What the host mounts later still comes in: volumes may have mounts of their own.
#pragma once
#include <string>
#include <vector>

#include "base/result.h"
#include "container/bundle/read_spec.h"

namespace bulkhead::container {

// As containerd wants a root file system put together.
struct MountSpec {
  std::string type, source;
  std::vector<std::string> options;
};

class Share {
 public:
  static constexpr char kInZone[] = "/run/bulkhead/share";
  // Leaves the host's mount namespace. One thread only.
  static Result<Share> make();
  const std::string& folder() const { return folder_; }

  // The container's files under its name: `root` mounted, or, where there is none, the bundle's own folder.
  Result<void> add(const std::string& container, const std::vector<MountSpec>& root, const std::string& root_folder,
                   const std::vector<SharedPath>& shared);
  void remove(const std::string& container);

 private:
  explicit Share(std::string folder) : folder_{std::move(folder)} {}
  std::string folder_;
};

}  // namespace bulkhead::container
