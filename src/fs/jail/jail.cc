#include "fs/jail/jail.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>

namespace bulkhead::fs {
namespace {

bool write_file(const char* path, const std::string& text) {
  const UniqueFd file{::open(path, O_WRONLY | O_CLOEXEC)};
  return file && ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

struct Tree {
  UniqueFd mount;
  bool folder = true;
};

Result<Tree> clone_tree(const std::string& path, bool read_only) {
  Tree tree{UniqueFd{::open_tree(AT_FDCWD, path.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE)}, true};
  if (!tree.mount) return fail_errno("opening {}", path);
  struct stat status{};
  if (::fstat(tree.mount.get(), &status) != 0) return fail_errno("looking at {}", path);
  tree.folder = S_ISDIR(status.st_mode);
  mount_attr attributes{};
  attributes.attr_set = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | (read_only ? MOUNT_ATTR_RDONLY : 0);
  // Mounts that another user namespace made may keep what they are; the server itself judges every request anyhow.
  ::mount_setattr(tree.mount.get(), "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes, sizeof attributes);
  return tree;
}

// `at` without its first slash, with folders above it: we stand in the new root.
void make_folders(const std::string& at) {
  for (std::size_t slash = at.find('/'); slash != std::string::npos; slash = at.find('/', slash + 1))
    ::mkdir(at.substr(0, slash).c_str(), 0755);
}

Result<void> put_tree(const Tree& tree, std::string at) {
  at.erase(0, 1);
  make_folders(at);
  if (tree.folder)
    ::mkdir(at.c_str(), 0700);
  else
    ::close(::open(at.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  if (::move_mount(tree.mount.get(), "", AT_FDCWD, at.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0)
    return fail_errno("mounting /{} in a root of our own", at);
  return {};
}

bool drop_capabilities(std::span<const unsigned> keep) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  if (!keep.empty()) {
    if (::syscall(SYS_capget, &header, data) != 0) return false;
    u32 kept[2] = {};
    for (const unsigned capability : keep) kept[CAP_TO_INDEX(capability)] |= CAP_TO_MASK(capability);
    for (int i = 0; i < 2; ++i) {
      data[i].permitted &= kept[i];
      data[i].effective = data[i].permitted;
      data[i].inheritable = 0;
    }
  }
  for (unsigned capability = 0; capability <= CAP_LAST_CAP; ++capability)
    ::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);  // nothing is executed any more; may be refused to others than root
  return ::syscall(SYS_capset, &header, data) == 0;
}

}  // namespace

bool own_namespaces() {
  constexpr int kWanted = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
  if (::unshare(kWanted) == 0) return true;
  // A user namespace would have nobody but us in it, and who may make files of other owners may need them.
  constexpr unsigned kOwners[] = {CAP_CHOWN};
  if (have_capabilities(kOwners)) return false;
  const uid_t uid = ::geteuid();
  const gid_t gid = ::getegid();
  if (::unshare(CLONE_NEWUSER | kWanted) != 0) return false;
  return write_file("/proc/self/setgroups", "deny") &&
         write_file("/proc/self/uid_map", fmt::format("{} {} 1", uid, uid)) &&
         write_file("/proc/self/gid_map", fmt::format("{} {} 1", gid, gid));
}

Result<void> new_root(const std::vector<JailedPath>& paths, const std::string& descriptors) {
  // Ours are slaves of the host's mounts.
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) return fail_errno("making mounts slaves");
  std::vector<Tree> trees;
  for (const JailedPath& one : paths) {
    BH_ASSIGN(Tree tree, clone_tree(one.path, one.read_only));
    trees.push_back(std::move(tree));
  }
  Tree open_files{UniqueFd{::open_tree(AT_FDCWD, "/proc/self/fd", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)}, true};
  if (!open_files.mount) return fail_errno("opening /proc/self/fd");
  const char* place = nullptr;
  for (const char* const candidate : {"/tmp", "/run", "/mnt", "/dev", "/proc"})
    if (place == nullptr && ::mount("tmpfs", candidate, "tmpfs", MS_NODEV | MS_NOSUID | MS_NOEXEC, "mode=0700") == 0)
      place = candidate;
  if (place == nullptr || ::chdir(place) != 0) return fail_errno("mounting a file system for the new root");
  BH_TRY(put_tree(open_files, descriptors));
  for (std::size_t i = 0; i < trees.size(); ++i) BH_TRY(put_tree(trees[i], paths[i].at));
  if (::syscall(SYS_pivot_root, ".", ".") != 0 || ::umount2(".", MNT_DETACH) != 0 || ::chdir("/") != 0)
    return fail_errno("changing the root");
  ::mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV | MS_NOSUID | MS_NOEXEC, nullptr);
  return {};
}

bool have_capabilities(std::span<const unsigned> wanted) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  if (::geteuid() != 0 || ::syscall(SYS_capget, &header, data) != 0) return false;
  return std::ranges::all_of(wanted, [&](unsigned capability) {
    return (data[CAP_TO_INDEX(capability)].permitted & CAP_TO_MASK(capability)) != 0;
  });
}

Result<void> seal(std::span<const unsigned> kept, std::span<const long> more) {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail_errno("giving up new privileges");
  ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  if (!drop_capabilities(kept)) return fail_errno("giving up capabilities");
  return filter_syscalls(more);
}

}  // namespace bulkhead::fs
