#include "zone/store/cache.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <vector>

namespace bulkhead::zone {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view kTemporary = ".making-";

Result<void> make_folder(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return fail("making the cache folder {}: {}", path, error.message());
  ::chmod(path.c_str(), 0700);
  return {};
}

// Locks the folder itself, so that no lock files are left about. Released when the descriptor closes.
Result<UniqueFd> lock_folder(const std::string& path, Workshop& workshop) {
  UniqueFd fd{::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (!fd) return fail_errno("opening the cache folder {}", path);
  while (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return fail_errno("locking the cache folder {}", path);
    pollfd end{workshop.signals != nullptr ? workshop.signals->fd() : -1, POLLIN, 0};
    ::poll(&end, 1, 100);
    workshop.progress.tick();
    if (end.revents != 0) {
      const int number = workshop.signals->next();
      if (number != 0 && number != SIGWINCH) return fail("interrupted while waiting for the cache folder {}", path);
    }
  }
  return fd;
}

void discard(const fs::path& path) {
  std::error_code ignored;
  fs::remove_all(path, ignored);
}

// Under the lock nobody is making anything, so what looks half-made was left by a process that was killed.
void remove_leftovers(const std::string& folder) {
  std::error_code error;
  std::vector<fs::path> stale;
  for (const auto& entry : fs::directory_iterator{folder, error})
    if (entry.path().filename().string().starts_with(kTemporary)) stale.push_back(entry.path());
  for (const fs::path& path : stale) discard(path);
}

void prune(const std::string& folder, unsigned keep) {
  std::error_code error;
  std::vector<std::pair<fs::file_time_type, fs::path>> entries;
  for (const auto& entry : fs::directory_iterator{folder, error})
    entries.emplace_back(entry.last_write_time(error), entry);
  if (keep == 0 || entries.size() <= keep) return;
  std::ranges::sort(entries, std::greater{});
  for (std::size_t i = keep; i < entries.size(); ++i) discard(entries[i].second);
}

bool exists(const std::string& path) {
  struct stat status;
  return ::lstat(path.c_str(), &status) == 0;
}

}  // namespace

Result<Cache> Cache::open() {
  const char* const set = ::getenv("XDG_CACHE_HOME");
  if (set != nullptr && set[0] == '/') return open_at(std::string{set} + "/bulkhead");
  const char* const home = ::getenv("HOME");
  if (home == nullptr || home[0] != '/')
    return fail("there is no place for the cache: neither XDG_CACHE_HOME nor HOME is set to an absolute path");
  return open_at(std::string{home} + "/.cache/bulkhead");
}

Result<Cache> Cache::open_at(std::string root) {
  BH_TRY(make_folder(root));
  return Cache{std::move(root)};
}

std::string Cache::folder(std::string_view kind) const { return fmt::format("{}/{}", root_, kind); }

Result<std::string> Cache::get(std::string_view kind, std::string_view name, Workshop& workshop, unsigned keep,
                               const Maker& make) {
  const std::string path = fmt::format("{}/{}", folder(kind), name);
  if (exists(path)) {
    ::utimensat(AT_FDCWD, path.c_str(), nullptr, 0);  // "used", for prune(); it may be somebody else's, then never mind
    return path;
  }
  BH_TRY(make_folder(folder(kind)));
  BH_ASSIGN(const UniqueFd lock, lock_folder(folder(kind), workshop));
  if (exists(path)) return path;  // made by the process that we waited for
  remove_leftovers(folder(kind));
  const std::string temporary = fmt::format("{}/{}{}", folder(kind), kTemporary, name);
  if (auto made = make(temporary); !made) {
    discard(temporary);
    return std::unexpected(std::move(made.error()));
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    auto error = fail_errno("putting {} into the cache", path);
    discard(temporary);
    return error;
  }
  prune(folder(kind), keep);
  return path;
}

}  // namespace bulkhead::zone
