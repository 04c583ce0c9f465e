// A container's root file system: mounts, device nodes, what is hidden. Every path of the container is looked up with
// its root as the root, so that links in an image lead nowhere else.
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>

#include "guest/pod/pod.h"

namespace bulkhead::pod {
namespace {

constexpr unsigned long kChanging = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME |
                                    MS_RELATIME | MS_STRICTATIME | MS_NOSYMFOLLOW;

struct Fd {
  int number = -1;
  explicit Fd(int fd = -1) : number{fd} {}
  Fd(Fd&& other) noexcept : number{other.number} { other.number = -1; }
  Fd& operator=(Fd&& other) noexcept {
    std::swap(number, other.number);
    return *this;
  }
  ~Fd() {
    if (number >= 0) close(number);
  }
  explicit operator bool() const { return number >= 0; }
  std::string path() const { return "/proc/self/fd/" + std::to_string(number); }
};

Fd open_in(const Fd& root, const std::string& path, unsigned long flags) {
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  return Fd{static_cast<int>(syscall(SYS_openat2, root.number, path.c_str(), &how, sizeof how))};
}

// The folder that holds the last part of `path`, made with its parents if it is not there. The part goes to `last`.
Fd open_parent(const Fd& root, const std::string& path, std::string& last) {
  std::string done = "/";
  Fd at = open_in(root, done, O_PATH | O_DIRECTORY);
  std::size_t start = 0;
  last.clear();
  while (at && start <= path.size()) {
    std::size_t end = path.find('/', start);
    if (end == std::string::npos) end = path.size();
    const std::string part = path.substr(start, end - start);
    start = end + 1;
    if (part.empty() || part == ".") continue;
    if (!last.empty()) {
      done += last + "/";
      Fd next = open_in(root, done, O_PATH | O_DIRECTORY);
      if (!next && errno == ENOENT && mkdirat(at.number, last.c_str(), 0755) == 0)
        next = open_in(root, done, O_PATH | O_DIRECTORY);
      at = std::move(next);
    }
    last = part;
  }
  return at;
}

// Where something is to be mounted: a folder, or a file, made if it is not there.
Fd open_target(const Fd& root, const std::string& path, bool folder) {
  Fd found = open_in(root, path, O_PATH);
  if (found || errno != ENOENT) return found;
  std::string last;
  const Fd parent = open_parent(root, path, last);
  if (!parent || last.empty()) return Fd{};
  if (folder) {
    mkdirat(parent.number, last.c_str(), 0755);
  } else if (const Fd made{openat(parent.number, last.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0644)};
             !made) {
    return Fd{};
  }
  return open_in(root, path, O_PATH);
}

std::string shared_path(const std::string& path) { return std::string{kShared} + "/" + path; }

bool bind(const Fd& root, const Mount& wanted, std::string& problem) {
  const std::string source = wanted.source().starts_with('/') ? wanted.source() : shared_path(wanted.source());
  struct stat status{};
  if (stat(source.c_str(), &status) != 0) {
    problem = errno_text("the source of the mount at %s", wanted.target().c_str());
    return false;
  }
  const Fd target = open_target(root, wanted.target(), S_ISDIR(status.st_mode));
  if (!target ||
      mount(source.c_str(), target.path().c_str(), nullptr, MS_BIND | (wanted.flags() & MS_REC), nullptr) != 0) {
    problem = errno_text("mounting at %s", wanted.target().c_str());
    return false;
  }
  const Fd mounted = open_in(root, wanted.target(), O_PATH);
  const unsigned long flags = wanted.flags() & kChanging;
  if (flags != 0 && mount(nullptr, mounted.path().c_str(), nullptr, MS_REMOUNT | MS_BIND | flags, nullptr) != 0) {
    problem = errno_text("setting the options of the mount at %s", wanted.target().c_str());
    return false;
  }
  return true;
}

bool mount_file_system(const Fd& root, const Mount& wanted, std::string& problem) {
  const Fd target = open_target(root, wanted.target(), true);
  // Version 1 of control groups is not offered by zones; a container that asks for them gets its own of version 2.
  const bool groups = wanted.type() == "cgroup";
  const std::string type = groups ? "cgroup2" : wanted.type();
  const char* const data = groups || wanted.data().empty() ? nullptr : wanted.data().c_str();
  const unsigned long flags = wanted.flags() & (kChanging | MS_SYNCHRONOUS | MS_DIRSYNC | MS_MANDLOCK);
  if (target && mount(wanted.source().c_str(), target.path().c_str(), type.c_str(), flags, data) == 0) return true;
  problem = errno_text("mounting %s at %s", type.c_str(), wanted.target().c_str());
  return false;
}

bool mount_all(const Container& container, const Fd& root, std::string& problem) {
  for (const Mount& wanted : container.mounts()) {
    if (wanted.kind() == Mount::BIND ? !bind(root, wanted, problem) : !mount_file_system(root, wanted, problem))
      return false;
    if (wanted.propagation() == 0) continue;
    const Fd mounted = open_in(root, wanted.target(), O_PATH);
    mount(nullptr, mounted.path().c_str(), nullptr, wanted.propagation(), nullptr);
  }
  return true;
}

bool has_own_dev(const Container& container) {
  for (const Mount& wanted : container.mounts())
    if (wanted.target() == "/dev") return wanted.kind() != Mount::BIND;
  return false;
}

bool make_devices(const Container& container, const Fd& root, std::string& problem) {
  const mode_t mask = umask(0);
  for (const Device& device : container.devices()) {
    std::string last;
    const Fd parent = open_parent(root, device.path(), last);
    const dev_t number = makedev(device.major(), device.minor());
    if (parent && (mknodat(parent.number, last.c_str(), device.type() | device.mode(), number) == 0)) {
      (void)!fchownat(parent.number, last.c_str(), device.uid(), device.gid(), AT_SYMLINK_NOFOLLOW);
    } else if (errno != EEXIST) {
      problem = errno_text("making the device %s", device.path().c_str());
      return false;
    }
  }
  umask(mask);
  const Fd dev = open_in(root, "/dev", O_PATH | O_DIRECTORY);
  for (const auto& [name, to] : {std::pair{"ptmx", "pts/ptmx"},
                                 {"fd", "/proc/self/fd"},
                                 {"stdin", "/proc/self/fd/0"},
                                 {"stdout", "/proc/self/fd/1"},
                                 {"stderr", "/proc/self/fd/2"}})
    (void)!symlinkat(to, dev.number, name);
  return true;
}

// The old root lies below the new one for a moment, and then nowhere [pivot_root(2)].
bool enter(const Fd& root, std::string& problem) {
  if (fchdir(root.number) == 0 && syscall(SYS_pivot_root, ".", ".") == 0 && umount2(".", MNT_DETACH) == 0 &&
      chdir("/") == 0)
    return true;
  problem = errno_text("entering the root file system");
  return false;
}

bool set_sysctls(const Container& container, std::string& problem) {
  for (const Sysctl& sysctl : container.sysctls()) {
    std::string path = "/proc/sys/" + sysctl.name();
    // net.ipv4.conf.eth0/1.x: as sysctl(8), where a slash comes first it is the other way round.
    for (char& c : path)
      if (c == '.') c = '/';
    if (write_file(path, sysctl.value())) continue;
    problem = errno_text("setting the sysctl %s to %s", sysctl.name().c_str(), sysctl.value().c_str());
    return false;
  }
  return true;
}

bool remount_read_only(const char* path) {
  // What a mount may not lose goes along, or the kernel refuses.
  unsigned long flags = 0;
  if (std::string text; read_file("/proc/self/mountinfo", text)) {
    for (const auto& [word, flag] : {std::pair{"nosuid", MS_NOSUID}, {"nodev", MS_NODEV}, {"noexec", MS_NOEXEC}}) {
      for (std::size_t start = 0; start < text.size();) {
        const std::size_t end = text.find('\n', start);
        const std::string line = text.substr(start, end - start);
        start = end == std::string::npos ? text.size() : end + 1;
        char point[512] = {}, options[512] = {};
        if (sscanf(line.c_str(), "%*s %*s %*s %*s %511s %511s", point, options) == 2 && strcmp(point, path) == 0 &&
            strstr(options, word) != nullptr)
          flags |= static_cast<unsigned long>(flag);
      }
    }
  }
  return mount(nullptr, path, nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, nullptr) == 0;
}

}  // namespace

bool make_root(const Container& container, std::string& problem) {
  // Nothing that is mounted here is seen outside.
  if (mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) {
    problem = errno_text("leaving the zone's mounts");
    return false;
  }
  const std::string path = shared_path(container.root());
  if (mount(path.c_str(), path.c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0) {
    problem = errno_text("mounting the root file system");
    return false;
  }
  // The zone's own mount of shared files honours no set-user-ID bits; a container's programs may have them.
  mount(nullptr, path.c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_NODEV, nullptr);
  const Fd root{open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)};
  if (!root) {
    problem = errno_text("opening the root file system");
    return false;
  }
  if (!mount_all(container, root, problem)) return false;
  if (has_own_dev(container) && !make_devices(container, root, problem)) return false;
  return enter(root, problem) && set_sysctls(container, problem);
}

bool hide_paths(const Container& container, std::string& problem) {
  for (const std::string& path : container.read_only_paths()) {
    if (mount(path.c_str(), path.c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0) {
      if (errno == ENOENT || errno == ENOTDIR) continue;
      problem = errno_text("making %s read-only", path.c_str());
      return false;
    }
    if (!remount_read_only(path.c_str())) {
      problem = errno_text("making %s read-only", path.c_str());
      return false;
    }
  }
  for (const std::string& path : container.masked_paths()) {
    struct stat status{};
    if (stat(path.c_str(), &status) != 0) continue;
    const int result = S_ISDIR(status.st_mode) ? mount("tmpfs", path.c_str(), "tmpfs", MS_RDONLY, "size=0,nr_inodes=1")
                                               : mount("/dev/null", path.c_str(), nullptr, MS_BIND, nullptr);
    if (result == 0) continue;
    problem = errno_text("hiding %s", path.c_str());
    return false;
  }
  if (container.root_propagation() != 0) mount(nullptr, "/", nullptr, container.root_propagation(), nullptr);
  if (!container.root_read_only() || remount_read_only("/")) return true;
  problem = errno_text("making the root file system read-only");
  return false;
}

}  // namespace bulkhead::pod
