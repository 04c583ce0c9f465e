#include "container/shim/share.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "base/fd.h"
#include "container/bundle/names.h"
#include "container/shim/flags.h"

namespace bulkhead::container {
namespace {

namespace fs = std::filesystem;

Result<void> mount_root(const std::vector<MountSpec>& layers, const std::string& at) {
  for (const MountSpec& layer : layers) {
    MountOptions options = mount_options(layer.options);
    const bool bind = options.bind || layer.type == "bind";
    const char* const data = options.data.empty() ? nullptr : options.data.c_str();
    // More layers than fit a page of options are given from the folder that most of them have in common.
    if (options.data.size() >= 4095) return fail("the root file system has too many layers for one mount");
    if (::mount(layer.source.c_str(), at.c_str(), bind ? nullptr : layer.type.c_str(),
                bind ? MS_BIND | MS_REC : options.flags, bind ? nullptr : data) != 0)
      return fail_errno("mounting the root file system from {} ({})", layer.source, layer.type);
    const unsigned long flags = options.flags & ~static_cast<u64>(MS_REC);
    if (bind && flags != 0 && ::mount(nullptr, at.c_str(), nullptr, MS_REMOUNT | MS_BIND | flags, nullptr) != 0)
      return fail_errno("setting the options of the root file system from {}", layer.source);
  }
  return {};
}

Result<void> show(const std::string& source, const std::string& at) {
  struct stat status{};
  if (::stat(source.c_str(), &status) != 0) return fail_errno("the volume {}", source);
  std::error_code error;
  if (S_ISDIR(status.st_mode)) {
    fs::create_directories(at, error);
  } else {
    const UniqueFd file{::open(at.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)};
  }
  if (::mount(source.c_str(), at.c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0)
    return fail_errno("binding the volume {}", source);
  return {};
}

}  // namespace

Result<Share> Share::make() {
  const std::string place = std::string{kRuntimeFolder} + "/pod";
  std::error_code error;
  fs::create_directories(place, error);
  if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_SLAVE | MS_REC, nullptr) != 0)
    return fail_errno("making a mount namespace (this needs CAP_SYS_ADMIN)");
  // Shared, but with nobody outside: for the file server, which leaves this namespace for one of its own.
  if (::mount("bulkhead-pod", place.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, "mode=0700") != 0 ||
      ::mount(nullptr, place.c_str(), nullptr, MS_SHARED, nullptr) != 0)
    return fail_errno("mounting the pod's folder {}", place);
  return Share{place};
}

Result<void> Share::add(const std::string& container, const std::vector<MountSpec>& root,
                        const std::string& root_folder, const std::vector<SharedPath>& shared) {
  std::error_code error;
  const std::string at = folder_ + "/" + container;
  fs::create_directories(at + "/root", error);
  if (error) return fail("making {}: {}", at, error.message());
  // Kept together in one mount, so that they come and go together.
  if (root.empty()) {
    BH_TRY(show(root_folder, at + "/root"));
  } else {
    BH_TRY(mount_root(root, at + "/root"));
  }
  for (const SharedPath& one : shared) BH_TRY(show(one.source, folder_ + "/" + one.place));
  return {};
}

void Share::remove(const std::string& container) {
  const std::string at = folder_ + "/" + container;
  std::vector<std::string> points;
  std::ifstream mounts{"/proc/self/mountinfo"};
  for (std::string line; std::getline(mounts, line);) {
    std::size_t start = 0;
    for (int i = 0; i < 4; ++i) start = line.find(' ', start) + 1;
    const std::string point = line.substr(start, line.find(' ', start) - start);
    if (point.starts_with(at + "/")) points.push_back(point);
  }
  // The file server may have files open in them until the zone has forgotten them.
  for (auto point = points.rbegin(); point != points.rend(); ++point)
    ::umount2(point->c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
  std::error_code error;
  fs::remove_all(at, error);
}

}  // namespace bulkhead::container
