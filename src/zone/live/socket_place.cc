#include "zone/live/socket_place.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

namespace bulkhead::zone {
namespace {

constexpr std::string_view kSuffix = ".sock";
constexpr int kBacklog = 16;

std::string file_of(const std::string& name) { return name + std::string{kSuffix}; }

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= 63 && name[0] != '.' && !name.contains('/') && !name.contains('\0');
}

// Made step by step: what is ours is for us alone, whatever our umask.
Result<UniqueFd> open_folder(const std::string& path, bool make) {
  const std::size_t slash = path.rfind('/');
  const std::string parent = path.substr(0, slash);
  if (make && ::access(path.c_str(), F_OK) != 0) {
    for (const std::string& one : {parent, path})
      if (::mkdir(one.c_str(), 0700) != 0 && errno != EEXIST) return fail_errno("making the folder {}", one);
  }
  struct stat above{};
  if (::lstat(parent.c_str(), &above) != 0) return fail_errno("examining the folder {}", parent);
  if (above.st_uid != ::geteuid()) return fail("the folder {} is not ours", parent);
  UniqueFd fd{::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)};
  if (!fd) return fail_errno("opening the folder {}", path);
  struct stat info{};
  if (::fstat(fd.get(), &info) != 0) return fail_errno("examining the folder {}", path);
  if (info.st_uid != ::geteuid() || (info.st_mode & 0077) != 0)
    return fail("the folder {} is not ours alone: it must belong to us and have mode 0700", path);
  return fd;
}

// By the folder's descriptor, for socket addresses are short and paths are not.
sockaddr_un address_of(const UniqueFd& folder, const std::string& name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  fmt::format_to_n(address.sun_path, sizeof address.sun_path - 1, "/proc/self/fd/{}/{}", folder.get(), file_of(name));
  return address;
}

UniqueFd new_socket() { return UniqueFd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)}; }

UniqueFd connected(const UniqueFd& folder, const std::string& name) {
  UniqueFd fd = new_socket();
  const sockaddr_un address = address_of(folder, name);
  if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const int saved = errno;
    fd.reset();
    errno = saved;
  }
  return fd;
}

// Whoever is busy (EAGAIN) is alive.
bool is_dead(const UniqueFd& folder, const std::string& name) {
  return !connected(folder, name) && (errno == ECONNREFUSED || errno == ENOENT);
}

class FolderLock {
 public:
  explicit FolderLock(const UniqueFd& folder) : fd_{folder.get()} { ::flock(fd_, LOCK_EX); }
  ~FolderLock() { ::flock(fd_, LOCK_UN); }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int fd_;
};

}  // namespace

std::string socket_folder() {
  if (const char* const given = std::getenv("BULKHEAD_RUNTIME_DIR"); given != nullptr && given[0] == '/')
    return std::string{given} + "/zones";
  if (::geteuid() == 0) return "/run/bulkhead/zones";
  if (const char* const given = std::getenv("XDG_RUNTIME_DIR"); given != nullptr && given[0] == '/')
    return std::string{given} + "/bulkhead/zones";
  return fmt::format("/tmp/bulkhead-{}/zones", ::geteuid());
}

Result<std::optional<SocketPlace>> SocketPlace::take(const std::string& folder, const std::string& name) {
  if (!is_name(name)) return fail("'{}' cannot be the name of a zone's socket", name);
  BH_ASSIGN(UniqueFd opened, open_folder(folder, true));
  const FolderLock lock{opened};
  if (!is_dead(opened, name)) return std::nullopt;
  ::unlinkat(opened.get(), file_of(name).c_str(), 0);
  UniqueFd fd = new_socket();
  const sockaddr_un address = address_of(opened, name);
  if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(fd.get(), kBacklog) != 0)
    return fail_errno("opening the socket {}/{}", folder, file_of(name));
  return std::optional{SocketPlace{std::move(opened), std::move(fd), name}};
}

void SocketPlace::free_name() {
  if (!listening_ || std::exchange(freed_, true)) return;
  const FolderLock lock{folder_};
  ::unlinkat(folder_.get(), file_of(name_).c_str(), 0);
}

void SocketPlace::leave() {
  free_name();
  listening_.reset();
}

Result<UniqueFd> connect_to_zone(const std::string& folder, const std::string& name) {
  if (!is_name(name)) return fail("'{}' is no name of a zone", name);
  auto opened = open_folder(folder, false);
  if (!opened) return fail("no zone '{}' is running (see `bulkhead zone list`)", name);
  UniqueFd fd = connected(*opened, name);
  if (fd) return fd;
  if (errno == EAGAIN) return fail("the zone '{}' has too many visitors at the moment", name);
  if (errno != ECONNREFUSED && errno != ENOENT) return fail_errno("connecting to the zone '{}'", name);
  return fail("no zone '{}' is running (see `bulkhead zone list`)", name);
}

std::vector<std::string> list_zones(const std::string& folder) {
  std::vector<std::string> names;
  auto opened = open_folder(folder, false);
  if (!opened) return names;
  const FolderLock lock{*opened};
  const std::unique_ptr<DIR, int (*)(DIR*)> entries{::opendir(folder.c_str()), &::closedir};
  while (const dirent* const entry = entries ? ::readdir(entries.get()) : nullptr) {
    const std::string_view file = entry->d_name;
    if (file.ends_with(kSuffix)) names.emplace_back(file.substr(0, file.size() - kSuffix.size()));
  }
  std::erase_if(names, [&](const std::string& name) {
    if (!is_dead(*opened, name)) return false;
    ::unlinkat(opened->get(), file_of(name).c_str(), 0);
    return true;
  });
  std::ranges::sort(names);
  return names;
}

}  // namespace bulkhead::zone
