// Requests about names: looked up, made, removed, moved.
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>

#include "fs/server/caller.h"
#include "fs/server/server.h"

namespace bulkhead::fs {
namespace {

constexpr mode_t kModeBits = 07777;

// One component below `folder`, never through a link. The kernel is told so, too, where it can be [openat2(2)].
int open_below(int folder, const char* name, int flags, mode_t mode = 0) {
  open_how how{};
  how.flags = static_cast<u64>(flags | O_NOFOLLOW | O_CLOEXEC);
  how.mode = mode;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  const long fd = ::syscall(SYS_openat2, folder, name, &how, sizeof how);
  if (fd >= 0 || errno != ENOSYS) return static_cast<int>(fd);
  return ::openat(folder, name, flags | O_NOFOLLOW | O_CLOEXEC, mode);
}

int result(int returned) { return returned == 0 ? 0 : errno; }

}  // namespace

int Server::root_lookup(std::string_view name, fuse_entry_out& out) {
  const auto found = std::ranges::find(shares_, name, &Share::name);
  if (found == shares_.end()) return ENOENT;
  UniqueFd fd{::fcntl(found->root.get(), F_DUPFD_CLOEXEC, 3)};
  if (!fd) return errno;
  return enter(std::move(fd), static_cast<u32>(found - shares_.begin()), found->read_only, true, out);
}

int Server::look_up(const Node& parent, const char* name, fuse_entry_out& out) {
  UniqueFd fd{open_below(parent.fd.get(), name, O_PATH)};
  if (!fd) return errno;
  return enter(std::move(fd), parent.key.share, parent.read_only, false, out);
}

int Server::enter(UniqueFd fd, u32 share, bool read_only, bool share_root, fuse_entry_out& out) {
  struct statx status{};
  if (::statx(fd.get(), "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_MNT_ID, &status) != 0)
    return errno;
  Node fresh;
  fresh.fd = std::move(fd);
  fresh.key = {u64{status.stx_dev_major} << 32 | status.stx_dev_minor, status.stx_ino, status.stx_mnt_id, share};
  fresh.type = status.stx_mode & S_IFMT;
  fresh.read_only = read_only;
  fresh.share_root = share_root;
  const NodePtr known = nodes_.enter(std::move(fresh));
  if (known == nullptr) return ENFILE;
  out = {};
  out.nodeid = known->id;
  out.entry_valid = out.attr_valid = config_.valid_seconds;
  out.attr = guest_attributes(status);
  return 0;
}

int Server::put_entry(Call& call, const Node& parent, const char* name) {
  fuse_entry_out out{};
  if (const int error = look_up(parent, name, out)) return error;
  call.reply.put(out);
  return 0;
}

int Server::lookup(Call& call) {
  NodePtr parent;
  std::string_view text;
  if (const int error = folder(call.node(), parent, false)) return error;
  if (const int error = name(call, text)) return error;
  fuse_entry_out out{};
  if (const int error = parent == root_ ? root_lookup(text, out) : look_up(*parent, text.data(), out)) return error;
  call.reply.put(out);
  return 0;
}

int Server::forget(Call& call) {
  const auto in = call.body.take<fuse_forget_in>();
  if (!in || !call.body.at_end()) return malformed();
  if (call.node() != FUSE_ROOT_ID) nodes_.forget(call.node(), in->nlookup);
  return 0;
}

int Server::batch_forget(Call& call) {
  const auto in = call.body.take<fuse_batch_forget_in>();
  if (!in || call.body.rest().size() != u64{in->count} * sizeof(fuse_forget_one)) return malformed();
  while (const auto one = call.body.take<fuse_forget_one>())
    if (one->nodeid != FUSE_ROOT_ID) nodes_.forget(one->nodeid, one->nlookup);
  return 0;
}

int Server::readlink(Call& call) {
  const NodePtr link = node(call.node());
  if (link == nullptr) return kStale;
  if (link->type != S_IFLNK) return EINVAL;
  const std::span<std::byte> room = call.reply.room(PATH_MAX);
  const ssize_t size = ::readlinkat(link->fd.get(), "", reinterpret_cast<char*>(room.data()), room.size());
  if (size < 0) return errno;
  call.reply.grow(static_cast<std::size_t>(size));
  return 0;
}

int Server::symlink(Call& call) {
  NodePtr parent;
  std::string_view text;
  if (const int error = folder(call.node(), parent, true)) return error;
  if (const int error = name(call, text, false)) return error;
  const auto target = call.body.text();
  if (!target || target->empty() || target->size() >= PATH_MAX || !call.body.at_end()) return malformed();
  {
    const CallerScope caller{config_.switch_users, call.header.uid, call.header.gid};
    if (!caller.good()) return forbidden();
    if (::symlinkat(target->data(), parent->fd.get(), text.data()) != 0) return errno;
  }
  return put_entry(call, *parent, text.data());
}

int Server::mknod(Call& call) {
  NodePtr parent;
  std::string_view text;
  const auto in = call.body.take<fuse_mknod_in>();
  if (!in) return malformed();
  if (const int error = folder(call.node(), parent, true)) return error;
  if (const int error = name(call, text)) return error;
  // A device node on the host would be the host's device. Pipes and sockets are the guest's own whatever we keep.
  const mode_t type = in->mode & S_IFMT;
  if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK && type != 0) return forbidden();
  {
    const CallerScope caller{config_.switch_users, call.header.uid, call.header.gid};
    if (!caller.good()) return forbidden();
    if (::mknodat(parent->fd.get(), text.data(), in->mode & (S_IFMT | kModeBits), 0) != 0) return errno;
  }
  return put_entry(call, *parent, text.data());
}

int Server::mkdir(Call& call) {
  NodePtr parent;
  std::string_view text;
  const auto in = call.body.take<fuse_mkdir_in>();
  if (!in) return malformed();
  if (const int error = folder(call.node(), parent, true)) return error;
  if (const int error = name(call, text)) return error;
  {
    const CallerScope caller{config_.switch_users, call.header.uid, call.header.gid};
    if (!caller.good()) return forbidden();
    if (::mkdirat(parent->fd.get(), text.data(), in->mode & kModeBits) != 0) return errno;
  }
  return put_entry(call, *parent, text.data());
}

int Server::remove(Call& call, int flags) {
  NodePtr parent;
  std::string_view text;
  if (const int error = folder(call.node(), parent, true)) return error;
  if (const int error = name(call, text)) return error;
  return result(::unlinkat(parent->fd.get(), text.data(), flags));
}

int Server::unlink(Call& call) { return remove(call, 0); }
int Server::rmdir(Call& call) { return remove(call, AT_REMOVEDIR); }

int Server::rename(Call& call) {
  const auto in = call.body.take<fuse_rename_in>();
  return in ? move(call, in->newdir, 0) : malformed();
}

int Server::rename2(Call& call) {
  const auto in = call.body.take<fuse_rename2_in>();
  if (!in) return malformed();
  // RENAME_WHITEOUT would make a device node.
  if ((in->flags & ~u32{RENAME_NOREPLACE | RENAME_EXCHANGE}) != 0) return forbidden(EINVAL);
  return move(call, in->newdir, in->flags);
}

int Server::move(Call& call, u64 to, u32 flags) {
  NodePtr from_folder, to_folder;
  std::string_view from_name, to_name;
  if (const int error = folder(call.node(), from_folder, true)) return error;
  if (const int error = folder(to, to_folder, true)) return error;
  if (const int error = name(call, from_name, false)) return error;
  if (const int error = name(call, to_name)) return error;
  if (from_folder->key.share != to_folder->key.share) return EXDEV;
  return result(::renameat2(from_folder->fd.get(), from_name.data(), to_folder->fd.get(), to_name.data(), flags));
}

int Server::link(Call& call) {
  const auto in = call.body.take<fuse_link_in>();
  if (!in) return malformed();
  NodePtr parent;
  std::string_view text;
  if (const int error = folder(call.node(), parent, true)) return error;
  if (const int error = name(call, text)) return error;
  const NodePtr old = node(in->oldnodeid);
  if (old == nullptr) return kStale;
  if (old == root_ || old->type == S_IFDIR) return EPERM;
  if (old->key.share != parent->key.share) return EXDEV;
  // By /proc, which AT_EMPTY_PATH would want a capability for; the last link there leads to the descriptor's file.
  if (::linkat(AT_FDCWD, descriptor_path(*old).c_str(), parent->fd.get(), text.data(), AT_SYMLINK_FOLLOW) != 0)
    return errno;
  return put_entry(call, *parent, text.data());
}

int Server::create(Call& call) {
  const auto in = call.body.take<fuse_create_in>();
  if (!in) return malformed();
  NodePtr parent;
  std::string_view text;
  if (const int error = folder(call.node(), parent, true)) return error;
  if (const int error = name(call, text)) return error;
  const int flags = open_flags(in->flags);
  fuse_entry_out entry{};
  UniqueFd file;
  {
    const CallerScope caller{config_.switch_users, call.header.uid, call.header.gid};
    if (!caller.good()) return forbidden();
    // Always new: what is there already may be a pipe or a device, which opening would wait for, or set off.
    file = UniqueFd{open_below(parent->fd.get(), text.data(), flags | O_CREAT | O_EXCL, in->mode & kModeBits)};
  }
  if (!file && (errno != EEXIST || (in->flags & O_EXCL) != 0)) return errno;
  if (file) {
    UniqueFd path{::open(fmt::format("{}/{}", config_.descriptors, file.get()).c_str(), O_PATH | O_CLOEXEC)};
    if (!path) return errno;
    if (const int error = enter(std::move(path), parent->key.share, parent->read_only, false, entry)) return error;
  } else {
    if (const int error = look_up(*parent, text.data(), entry)) return error;
    const NodePtr there = nodes_.find(entry.nodeid);
    const KillSetIdScope kill{(in->open_flags & FUSE_OPEN_KILL_SUIDGID) != 0};
    if (there != nullptr && there->type == S_IFREG) file = UniqueFd{reopen(*there, flags)};
    const int error = there != nullptr && there->type != S_IFREG ? EINVAL : errno;
    if (!file) {
      nodes_.forget(entry.nodeid, 1);
      return error;
    }
  }
  fuse_open_out open{};
  open.fh = handles_.open(std::move(file), entry.nodeid, false);
  open.open_flags = FOPEN_KEEP_CACHE;
  if (open.fh == 0) {
    nodes_.forget(entry.nodeid, 1);
    return ENFILE;
  }
  call.reply.put(entry);
  call.reply.put(open);
  return 0;
}

}  // namespace bulkhead::fs
