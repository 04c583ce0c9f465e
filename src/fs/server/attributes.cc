// Requests about what a file is like.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fs/server/caller.h"
#include "fs/server/server.h"

namespace bulkhead::fs {
namespace {

constexpr u32 kAllAttributes = FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_SIZE | FATTR_ATIME | FATTR_MTIME | FATTR_FH |
                               FATTR_ATIME_NOW | FATTR_MTIME_NOW | FATTR_LOCKOWNER | FATTR_CTIME | FATTR_KILL_SUIDGID;

timespec time_of(u32 valid, u32 set, u32 now, u64 seconds, u32 nanoseconds) {
  if ((valid & set) == 0) return {0, UTIME_OMIT};
  if ((valid & now) != 0) return {0, UTIME_NOW};
  return {static_cast<time_t>(seconds), static_cast<long>(nanoseconds)};
}

}  // namespace

fuse_attr Server::guest_attributes(const struct statx& host) {
  fuse_attr out{};
  out.ino = nodes_.guest_inode(u64{host.stx_dev_major} << 32 | host.stx_dev_minor, host.stx_ino);
  out.size = host.stx_size;
  out.blocks = host.stx_blocks;
  out.atime = static_cast<u64>(host.stx_atime.tv_sec);
  out.mtime = static_cast<u64>(host.stx_mtime.tv_sec);
  out.ctime = static_cast<u64>(host.stx_ctime.tv_sec);
  out.atimensec = host.stx_atime.tv_nsec;
  out.mtimensec = host.stx_mtime.tv_nsec;
  out.ctimensec = host.stx_ctime.tv_nsec;
  out.mode = host.stx_mode;
  out.nlink = host.stx_nlink;
  out.uid = host.stx_uid;
  out.gid = host.stx_gid;
  // As the guest's kernel reads it [linux kdev_t.h new_decode_dev].
  out.rdev = (host.stx_rdev_minor & 0xff) | host.stx_rdev_major << 8 | (host.stx_rdev_minor & ~0xffu) << 12;
  out.blksize = host.stx_blksize;
  return out;
}

void Server::root_attributes(fuse_attr& out) const {
  out = {};
  out.ino = FUSE_ROOT_ID;
  out.mode = S_IFDIR | 0555;
  out.nlink = 2 + static_cast<u32>(shares_.size());
  out.blksize = 4096;
}

// By the open file where there is one, which may have no name any more.
int Server::attributes(const Node& of, int fd, fuse_attr& out) {
  if (&of == root_.get()) {
    root_attributes(out);
    return 0;
  }
  struct statx status{};
  if (::statx(fd >= 0 ? fd : of.fd.get(), "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &status) != 0)
    return errno;
  out = guest_attributes(status);
  return 0;
}

void Server::put_attributes(Call& call, const fuse_attr& attributes) {
  fuse_attr_out out{};
  out.attr_valid = config_.valid_seconds;
  out.attr = attributes;
  call.reply.put(out);
}

int Server::getattr(Call& call) {
  if (!call.body.take<fuse_getattr_in>()) return malformed();
  const NodePtr of = node(call.node());
  if (of == nullptr) return kStale;
  fuse_attr out;
  if (const int error = attributes(*of, -1, out)) return error;
  put_attributes(call, out);
  return 0;
}

int Server::setattr(Call& call) {
  const auto in = call.body.take<fuse_setattr_in>();
  if (!in || (in->valid & ~kAllAttributes) != 0) return malformed();
  const NodePtr of = node(call.node());
  if (of == nullptr) return kStale;
  if (const int error = writable(*of)) return error;
  HandlePtr handle;
  if ((in->valid & FATTR_FH) != 0) {
    handle = handles_.find(in->fh, of->id, false);
    if (handle == nullptr) return EBADF;
  }
  const std::string path = descriptor_path(*of);
  if ((in->valid & FATTR_MODE) != 0 && ::chmod(path.c_str(), in->mode & 07777) != 0) return errno;
  if ((in->valid & (FATTR_UID | FATTR_GID)) != 0) {
    const uid_t uid = (in->valid & FATTR_UID) != 0 ? in->uid : static_cast<uid_t>(-1);
    const gid_t gid = (in->valid & FATTR_GID) != 0 ? in->gid : static_cast<gid_t>(-1);
    if (::fchownat(of->fd.get(), "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0) return errno;
  }
  if ((in->valid & FATTR_SIZE) != 0) {
    if (of->type != S_IFREG) return EINVAL;
    if (in->size > static_cast<u64>(INT64_MAX)) return EFBIG;
    UniqueFd opened;
    if (handle == nullptr && !(opened = UniqueFd{reopen(*of, O_WRONLY | O_NONBLOCK)})) return errno;
    const KillSetIdScope kill{(in->valid & FATTR_KILL_SUIDGID) != 0};
    if (::ftruncate(handle != nullptr ? handle->fd.get() : opened.get(), static_cast<off_t>(in->size)) != 0)
      return errno;
  }
  if ((in->valid & (FATTR_ATIME | FATTR_MTIME)) != 0) {
    const timespec times[2] = {time_of(in->valid, FATTR_ATIME, FATTR_ATIME_NOW, in->atime, in->atimensec),
                               time_of(in->valid, FATTR_MTIME, FATTR_MTIME_NOW, in->mtime, in->mtimensec)};
    if (::utimensat(AT_FDCWD, path.c_str(), times, 0) != 0) return errno;
  }
  fuse_attr out;
  if (const int error = attributes(*of, handle != nullptr ? handle->fd.get() : -1, out)) return error;
  put_attributes(call, out);
  return 0;
}

int Server::statfs(Call& call) {
  const NodePtr of = node(call.node());
  if (of == nullptr) return kStale;
  fuse_statfs_out out{};
  out.st.bsize = out.st.frsize = 4096;
  out.st.namelen = kMaxName;
  struct statfs status{};
  if (of != root_) {
    if (::fstatfs(of->fd.get(), &status) != 0) return errno;
    out.st.blocks = status.f_blocks;
    out.st.bfree = status.f_bfree;
    out.st.bavail = status.f_bavail;
    out.st.files = status.f_files;
    out.st.ffree = status.f_ffree;
    out.st.bsize = static_cast<u32>(status.f_bsize);
    out.st.frsize = static_cast<u32>(status.f_frsize);
  }
  call.reply.put(out);
  return 0;
}

// The guest's kernel judges permissions itself.
int Server::access(Call&) { return ENOSYS; }

}  // namespace bulkhead::fs
