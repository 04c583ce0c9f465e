#include "fs/process/confine.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <initializer_list>

namespace bulkhead::fs {
namespace {

constexpr rlim_t kDescriptors = 640 * 1024;  // every file that the guest knows needs one

// What serving files as root takes. Not CAP_MKNOD, not CAP_DAC_READ_SEARCH, not CAP_SYS_ADMIN.
constexpr std::initializer_list<unsigned> kKept = {CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID,
                                                   CAP_SETUID, CAP_SETGID,       CAP_SETFCAP};

void raise_descriptors() {
  rlimit limit{kDescriptors, kDescriptors};
  if (::setrlimit(RLIMIT_NOFILE, &limit) == 0) return;
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

bool write_file(const char* path, const std::string& text) {
  const UniqueFd file{::open(path, O_WRONLY | O_CLOEXEC)};
  return file && ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

// Without privilege: as root of a user namespace in which there is nobody but us.
bool own_namespaces() {
  constexpr int kWanted = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
  if (::unshare(kWanted) == 0) return true;
  const uid_t uid = ::geteuid();
  const gid_t gid = ::getegid();
  if (::unshare(CLONE_NEWUSER | kWanted) != 0) return false;
  return write_file("/proc/self/setgroups", "deny") &&
         write_file("/proc/self/uid_map", fmt::format("{} {} 1", uid, uid)) &&
         write_file("/proc/self/gid_map", fmt::format("{} {} 1", gid, gid));
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

Result<void> put_tree(const Tree& tree, const std::string& at) {
  if (tree.folder)
    ::mkdir(at.c_str(), 0700);
  else
    ::close(::open(at.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  if (::move_mount(tree.mount.get(), "", AT_FDCWD, at.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0)
    return fail_errno("mounting a share");
  return {};
}

// A root with the shares and our own descriptors in it, and nothing else. What is mounted below a share later comes,
// too: our mounts are slaves of the host's.
Result<void> new_root(const std::vector<ShareSpec>& shares) {
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) return fail_errno("making mounts slaves");
  std::vector<Tree> trees;
  for (const ShareSpec& share : shares) {
    BH_ASSIGN(Tree tree, clone_tree(share.path, share.read_only));
    trees.push_back(std::move(tree));
  }
  Tree descriptors{UniqueFd{::open_tree(AT_FDCWD, "/proc/self/fd", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)}, true};
  if (!descriptors.mount) return fail_errno("opening /proc/self/fd");
  const char* place = nullptr;
  for (const char* const candidate : {"/tmp", "/run", "/mnt", "/dev", "/proc"})
    if (place == nullptr && ::mount("tmpfs", candidate, "tmpfs", MS_NODEV | MS_NOSUID | MS_NOEXEC, "mode=0700") == 0)
      place = candidate;
  if (place == nullptr || ::chdir(place) != 0) return fail_errno("mounting a file system for the new root");
  BH_TRY(put_tree(descriptors, "fd"));
  for (std::size_t i = 0; i < trees.size(); ++i) BH_TRY(put_tree(trees[i], std::to_string(i)));
  if (::syscall(SYS_pivot_root, ".", ".") != 0 || ::umount2(".", MNT_DETACH) != 0 || ::chdir("/") != 0)
    return fail_errno("changing the root");
  ::mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV | MS_NOSUID | MS_NOEXEC, nullptr);
  return {};
}

bool drop_capabilities(bool keep) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  if (keep) {
    if (::syscall(SYS_capget, &header, data) != 0) return false;
    u32 kept[2] = {};
    for (const unsigned capability : kKept) kept[CAP_TO_INDEX(capability)] |= CAP_TO_MASK(capability);
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

bool may_be_others() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  if (::geteuid() != 0 || ::syscall(SYS_capget, &header, data) != 0) return false;
  return std::ranges::all_of(kKept, [&](unsigned capability) {
    return (data[CAP_TO_INDEX(capability)].permitted & CAP_TO_MASK(capability)) != 0;
  });
}

}  // namespace

Result<Confined> confine(const std::vector<ShareSpec>& wanted) {
  raise_descriptors();
  ::umask(0);
  Confined out;
  out.switch_users = may_be_others();
  out.namespaces = own_namespaces();
  if (out.namespaces) BH_TRY(new_root(wanted));
  out.descriptors = out.namespaces ? "/fd" : "/proc/self/fd";
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const std::string path = out.namespaces ? fmt::format("/{}", i) : wanted[i].path;
    Share share{wanted[i].name, UniqueFd{::open(path.c_str(), O_PATH | O_CLOEXEC)}, wanted[i].read_only};
    if (!share.root) return fail_errno("opening {}", wanted[i].path);
    out.shares.push_back(std::move(share));
  }
  return out;
}

Result<void> seal(bool switch_users) {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail_errno("giving up new privileges");
  ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  if (!drop_capabilities(switch_users)) return fail_errno("giving up capabilities");
  return filter_syscalls();
}

}  // namespace bulkhead::fs
