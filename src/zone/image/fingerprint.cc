#include "zone/image/fingerprint.h"

#include <fts.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <memory>

#include "zone/store/sha256.h"

namespace bulkhead::zone {
namespace {

int by_name(const FTSENT** a, const FTSENT** b) { return std::strcmp((*a)->fts_name, (*b)->fts_name); }

// "a/" and "a" are the same folder and must give the same paths below it.
std::string without_slash(std::string folder) {
  while (folder.size() > 1 && folder.back() == '/') folder.pop_back();
  return folder;
}

Result<void> walk(const std::string& folder, const std::function<Result<void>(const FTSENT&)>& visit) {
  std::string root = without_slash(folder);
  char* roots[] = {root.data(), nullptr};
  const std::unique_ptr<FTS, int (*)(FTS*)> fts{::fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, by_name), ::fts_close};
  if (!fts) return fail_errno("reading the folder {}", folder);
  errno = 0;
  while (const FTSENT* const entry = ::fts_read(fts.get())) {
    if (entry->fts_info == FTS_DP) continue;
    if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR || entry->fts_info == FTS_NS)
      return fail("reading {}: {}", entry->fts_path, std::strerror(entry->fts_errno));
    BH_TRY(visit(*entry));
  }
  return errno != 0 ? Result<void>{fail_errno("reading the folder {}", folder)} : Result<void>{};
}

Result<void> add_entry(Sha256& sha, const FTSENT& entry, std::size_t prefix) {
  const struct stat& status = *entry.fts_statp;
  sha.add_text(std::string_view{entry.fts_path}.substr(std::min<std::size_t>(prefix, entry.fts_pathlen)));
  for (const u64 value :
       {u64{status.st_mode}, u64{status.st_uid}, u64{status.st_gid}, u64{status.st_rdev}, u64{status.st_ino},
        u64{status.st_dev}, static_cast<u64>(status.st_mtim.tv_sec), static_cast<u64>(status.st_mtim.tv_nsec),
        static_cast<u64>(status.st_ctim.tv_sec), static_cast<u64>(status.st_ctim.tv_nsec)})
    sha.add_number(value);
  if (!S_ISDIR(status.st_mode)) sha.add_number(static_cast<u64>(status.st_size));
  if (!S_ISLNK(status.st_mode)) return {};
  char target[4096];
  const ssize_t length = ::readlink(entry.fts_accpath, target, sizeof target);
  if (length < 0) return fail_errno("reading the link {}", entry.fts_path);
  sha.add_text({target, static_cast<std::size_t>(length)});
  return {};
}

}  // namespace

Result<std::string> fingerprint(const std::string& folder) {
  Sha256 sha;
  const std::size_t prefix = without_slash(folder).size();
  BH_TRY(walk(folder, [&](const FTSENT& entry) { return add_entry(sha, entry, prefix); }));
  return sha.hex();
}

Result<FolderSize> measure(const std::string& folder) {
  FolderSize size;
  BH_TRY(walk(folder, [&](const FTSENT& entry) -> Result<void> {
    ++size.files;
    if (S_ISREG(entry.fts_statp->st_mode))
      size.bytes += (static_cast<u64>(entry.fts_statp->st_size) + 4095) & ~u64{4095};
    return {};
  }));
  return size;
}

}  // namespace bulkhead::zone
