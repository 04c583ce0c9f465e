#include "zone/oci/tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

namespace bulkhead::zone {
namespace {

constexpr std::size_t kMaxName = 4096;
constexpr unsigned kMaxDepth = 512;

long open_in(int root, const char* path, u64 flags) {
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  return ::syscall(SYS_openat2, root, path, &how, sizeof how);
}

Result<std::vector<std::string>> components(std::string_view name) {
  std::vector<std::string> out;
  if (name.size() > kMaxName) return fail("the image has a name of {} bytes", name.size());
  while (!name.empty()) {
    const std::string_view one = name.substr(0, name.find('/'));
    name.remove_prefix(std::min(one.size() + 1, name.size()));
    if (one.empty() || one == ".") continue;
    if (one == "..") return fail("the image has a name with '..' in it, which it must not");
    if (one.size() > 255 || one.contains('\0')) return fail("the image has a name that no file can have");
    out.emplace_back(one);
  }
  return out;
}

std::string joined(std::span<const std::string> parts) {
  std::string out;
  for (const std::string& part : parts) out += "/" + part;
  return out.empty() ? "/" : out;
}

}  // namespace

Result<Tree> Tree::open(const std::string& path) {
  UniqueFd root{::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)};
  if (!root) return fail_errno("opening {}", path);
  return Tree{std::move(root)};
}

Result<UniqueFd> Tree::find_folder(const std::string& path) const {
  UniqueFd out{static_cast<int>(open_in(root_.get(), path.c_str(), O_RDONLY | O_DIRECTORY))};
  if (!out) return fail_errno("looking for {} in the image", path);
  return out;
}

Result<Tree::Place> Tree::place(std::string_view name, bool make) {
  BH_ASSIGN(std::vector<std::string> parts, components(name));
  Place out;
  if (!parts.empty()) {
    out.last = std::move(parts.back());
    parts.pop_back();
  }
  const std::string above = joined(parts);
  out.parent = UniqueFd{static_cast<int>(open_in(root_.get(), above.c_str(), O_RDONLY | O_DIRECTORY))};
  if (!out.parent && errno == ENOENT && make) {  // layers may leave folders out
    for (std::size_t i = 1; i <= parts.size(); ++i) {
      const std::span<const std::string> some{parts.data(), i};
      if (UniqueFd{static_cast<int>(open_in(root_.get(), joined(some).c_str(), O_PATH))}) continue;
      BH_ASSIGN(const UniqueFd parent, find_folder(joined(some.first(i - 1))));
      if (::mkdirat(parent.get(), parts[i - 1].c_str(), 0755) != 0 && errno != EEXIST)
        return fail_errno("making the folder {} of the image", joined(some));
      remember(parent.get(), parts[i - 1].c_str());
    }
    out.parent = UniqueFd{static_cast<int>(open_in(root_.get(), above.c_str(), O_RDONLY | O_DIRECTORY))};
  }
  if (!out.parent) return fail_errno("looking for {} in the image", above);
  return out;
}

void Tree::remember(int parent, const char* name) {
  struct stat status{};
  if (::fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) == 0) made_.emplace(status.st_dev, status.st_ino);
}

// Takes away what is there, for something else to come.
Result<void> Tree::make_way(const Place& at, bool keep_folder, bool& kept) {
  kept = false;
  if (at.last.empty()) {
    if (!keep_folder) return fail("the image wants something else than a folder as its root");
    kept = true;
    return {};
  }
  struct stat status{};
  if (::fstatat(at.parent.get(), at.last.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) return {};
  kept = keep_folder && S_ISDIR(status.st_mode);
  if (kept) return {};
  made_.erase({status.st_dev, status.st_ino});  // also what this layer made itself
  return remove_at(at.parent.get(), at.last.c_str(), 0);
}

Result<void> Tree::set(const Place& at, const Attributes& attributes, bool link) {
  const char* const name = at.last.empty() ? "." : at.last.c_str();
  if (::geteuid() == 0 && ::fchownat(at.parent.get(), name, attributes.uid, attributes.gid, AT_SYMLINK_NOFOLLOW) != 0)
    return fail_errno("setting the owner of {} in the image", at.last);
  // Not followed: it was made just now, and nobody else is here.
  if (!link && ::fchmodat(at.parent.get(), name, attributes.mode & 07777, 0) != 0)
    return fail_errno("setting the mode of {} in the image", at.last);
  const timespec times[2] = {attributes.time, attributes.time};
  ::utimensat(at.parent.get(), name, times, AT_SYMLINK_NOFOLLOW);
  return {};
}

Result<void> Tree::folder(std::string_view name, const Attributes& attributes) {
  BH_ASSIGN(const Place at, place(name, true));
  bool kept = false;
  BH_TRY(make_way(at, true, kept));
  if (!kept && ::mkdirat(at.parent.get(), at.last.c_str(), 0700) != 0)
    return fail_errno("making the folder {} of the image", name);
  if (!at.last.empty()) remember(at.parent.get(), at.last.c_str());
  folder_times_.emplace_back(name, attributes.time);
  // Others than root must be able to go on in it.
  Attributes ours = attributes;
  if (::geteuid() != 0) ours.mode |= 0700;
  return set(at, ours, false);
}

Result<void> Tree::symlink(std::string_view name, const std::string& target, const Attributes& attributes) {
  if (target.empty() || target.size() >= kMaxName) return fail("the image has a link that leads nowhere: {}", name);
  BH_ASSIGN(const Place at, place(name, true));
  bool kept = false;
  BH_TRY(make_way(at, false, kept));
  if (::symlinkat(target.c_str(), at.parent.get(), at.last.c_str()) != 0)
    return fail_errno("making the link {} of the image", name);
  remember(at.parent.get(), at.last.c_str());
  return set(at, attributes, true);
}

Result<void> Tree::pipe(std::string_view name, const Attributes& attributes) {
  BH_ASSIGN(const Place at, place(name, true));
  bool kept = false;
  BH_TRY(make_way(at, false, kept));
  if (::mkfifoat(at.parent.get(), at.last.c_str(), 0600) != 0)
    return fail_errno("making the pipe {} of the image", name);
  remember(at.parent.get(), at.last.c_str());
  return set(at, attributes, false);
}

Result<void> Tree::hard_link(std::string_view name, std::string_view target) {
  BH_ASSIGN(const Place from, place(target, false));
  BH_ASSIGN(const Place at, place(name, true));
  struct stat status{};
  if (from.last.empty() || ::fstatat(from.parent.get(), from.last.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0)
    return fail("the image has a hard link {} to {}, which is not there", name, target);
  if (S_ISDIR(status.st_mode)) return fail("the image has a hard link {} to a folder", name);
  struct stat there{};
  if (::fstatat(at.parent.get(), at.last.c_str(), &there, AT_SYMLINK_NOFOLLOW) == 0 && there.st_dev == status.st_dev &&
      there.st_ino == status.st_ino)
    return {};  // to itself
  bool kept = false;
  BH_TRY(make_way(at, false, kept));
  if (::linkat(from.parent.get(), from.last.c_str(), at.parent.get(), at.last.c_str(), 0) != 0)
    return fail_errno("making the hard link {} of the image", name);
  remember(at.parent.get(), at.last.c_str());
  return {};
}

Result<UniqueFd> Tree::create(std::string_view name) {
  BH_ASSIGN(const Place at, place(name, true));
  bool kept = false;
  BH_TRY(make_way(at, false, kept));
  UniqueFd file{::openat(at.parent.get(), at.last.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600)};
  if (!file) return fail_errno("making the file {} of the image", name);
  remember(at.parent.get(), at.last.c_str());
  return file;
}

Result<void> Tree::finish(const UniqueFd& file, const Attributes& attributes) {
  const bool owner = ::geteuid() != 0 || ::fchown(file.get(), attributes.uid, attributes.gid) == 0;
  const timespec times[2] = {attributes.time, attributes.time};
  if (!owner || ::fchmod(file.get(), attributes.mode & 07777) != 0) return fail_errno("setting a file's attributes");
  ::futimens(file.get(), times);
  return {};
}

// A folder that has something of this layer in it stays.
Result<void> Tree::remove_at(int parent, const char* name, unsigned depth) {
  if (depth > kMaxDepth) return fail("the image has folders deeper than {}", kMaxDepth);
  struct stat status{};
  if (::fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) != 0) return {};
  if (made_.contains({status.st_dev, status.st_ino})) return {};
  if (!S_ISDIR(status.st_mode)) {
    if (::unlinkat(parent, name, 0) != 0) return fail_errno("removing {} of a lower layer", name);
    return {};
  }
  {
    const UniqueFd folder{::openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)};
    if (!folder) return fail_errno("opening {} of a lower layer", name);
    BH_TRY(clear_at(folder.get(), depth + 1));
  }
  if (::unlinkat(parent, name, AT_REMOVEDIR) != 0 && errno != ENOTEMPTY)
    return fail_errno("removing {} of a lower layer", name);
  return {};
}

Result<void> Tree::clear_at(int folder, unsigned depth) {
  struct Close {
    void operator()(DIR* of) const { ::closedir(of); }
  };
  const int copy = ::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, Close> list{copy >= 0 ? ::fdopendir(copy) : nullptr};
  if (list == nullptr) return fail_errno("reading a folder of a lower layer");
  std::vector<std::string> names;
  while (const dirent* const entry = ::readdir(list.get()))
    if (const std::string name = entry->d_name; name != "." && name != "..") names.push_back(name);
  for (const std::string& name : names) BH_TRY(remove_at(folder, name.c_str(), depth));
  return {};
}

Result<void> Tree::remove(std::string_view name) {
  auto at = place(name, false);
  if (!at || at->last.empty()) return {};  // nothing to hide
  return remove_at(at->parent.get(), at->last.c_str(), 0);
}

Result<void> Tree::clear(std::string_view name) {
  BH_ASSIGN(const std::vector<std::string> parts, components(name));
  const auto folder = find_folder(joined(parts));
  if (!folder) return {};
  return clear_at(folder->get(), 0);
}

Result<void> Tree::end_layer() {
  for (const auto& [name, time] : folder_times_) {
    const auto at = place(name, false);
    if (!at) continue;  // removed by this very layer
    const timespec times[2] = {time, time};
    ::utimensat(at->parent.get(), at->last.empty() ? "." : at->last.c_str(), times, AT_SYMLINK_NOFOLLOW);
  }
  folder_times_.clear();
  return {};
}

std::string Tree::read(std::string_view name, std::size_t most) const {
  std::string out;
  const UniqueFd file{static_cast<int>(open_in(root_.get(), std::string{name}.c_str(), O_RDONLY | O_NONBLOCK))};
  struct stat status{};
  if (!file || ::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode)) return out;
  out.resize(std::min<std::size_t>(most, static_cast<std::size_t>(status.st_size)));
  const ssize_t got = ::pread(file.get(), out.data(), out.size(), 0);
  out.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return out;
}

Result<void> Tree::ensure_folder(std::string_view name) {
  BH_ASSIGN(const std::vector<std::string> parts, components(name));
  if (find_folder(joined(parts))) return {};
  return folder(name, {0, 0, 0755, {}});
}

}  // namespace bulkhead::zone
