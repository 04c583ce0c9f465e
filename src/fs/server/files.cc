// Requests about open files.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>

#include "fs/server/caller.h"
#include "fs/server/server.h"

namespace bulkhead::fs {
namespace {

constexpr u64 kMostCopied = 64_MiB;  // by one request, so that none keeps others for long

bool good_range(u64 offset, u64 size) {
  constexpr u64 kEnd = static_cast<u64>(INT64_MAX);
  return offset <= kEnd && size <= kEnd - offset;
}

// All of it, or up to the end of the file.
template <class Call>
ssize_t in_full(std::size_t size, Call&& call) {
  std::size_t done = 0;
  while (done < size) {
    const ssize_t now = call(done);
    if (now < 0 && errno == EINTR) continue;
    if (now < 0) return done > 0 ? static_cast<ssize_t>(done) : -1;
    if (now == 0) break;
    done += static_cast<std::size_t>(now);
  }
  return static_cast<ssize_t>(done);
}

}  // namespace

// What of the guest's flags means something to us. Not O_APPEND: the guest's kernel says where everything goes, and
// pages of a mapping may come by any handle. Not O_DIRECT: it is the guest's cache that is passed by.
int Server::open_flags(u32 guest) {
  return static_cast<int>(guest) & (O_ACCMODE | O_TRUNC | O_DSYNC | (O_SYNC & ~O_DSYNC));
}

int Server::open(Call& call) {
  const auto in = call.body.take<fuse_open_in>();
  if (!in) return malformed();
  const NodePtr of = node(call.node());
  if (of == nullptr) return kStale;
  if (of->type == S_IFDIR) return EISDIR;
  if (of->type != S_IFREG) return forbidden(ENXIO);  // a guest's kernel opens such things itself
  int flags = open_flags(in->flags);
  const bool changes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0;
  if (changes)
    if (const int error = writable(*of)) return error;
  UniqueFd file;
  if (of->read_only) file = UniqueFd{reopen(*of, flags | O_NOATIME)};  // not even the time changes, if that is ours
  if (!file) {
    const KillSetIdScope kill{(in->open_flags & FUSE_OPEN_KILL_SUIDGID) != 0};
    file = UniqueFd{reopen(*of, flags)};
  }
  if (!file) return errno;
  fuse_open_out out{};
  out.fh = handles_.open(std::move(file), of->id, false);
  out.open_flags = FOPEN_KEEP_CACHE;  // FUSE_AUTO_INVAL_DATA drops it when the host has changed the file
  if (out.fh == 0) return ENFILE;
  call.reply.put(out);
  return 0;
}

int Server::read(Call& call) {
  const auto in = call.body.take<fuse_read_in>();
  if (!in || in->size > kMaxData || !good_range(in->offset, in->size)) return malformed();
  const HandlePtr file = handles_.find(in->fh, call.node(), false);
  if (file == nullptr) return EBADF;
  std::byte* const to = call.reply.room(in->size).data();
  const ssize_t got = in_full(in->size, [&](std::size_t done) {
    return ::pread(file->fd.get(), to + done, in->size - done, static_cast<off_t>(in->offset + done));
  });
  if (got < 0) return errno;
  call.reply.grow(static_cast<std::size_t>(got));
  return 0;
}

int Server::write(Call& call) {
  const auto in = call.body.take<fuse_write_in>();
  if (!in || in->size > kMaxData || in->size != call.body.rest().size() || !good_range(in->offset, in->size))
    return malformed();
  const HandlePtr file = handles_.find(in->fh, call.node(), false);
  if (file == nullptr) return EBADF;
  const KillSetIdScope kill{(in->write_flags & FUSE_WRITE_KILL_SUIDGID) != 0};
  const std::byte* const from = call.body.rest().data();
  const ssize_t put = in_full(in->size, [&](std::size_t done) {
    return ::pwrite(file->fd.get(), from + done, in->size - done, static_cast<off_t>(in->offset + done));
  });
  if (put < 0) return errno;
  call.reply.put(fuse_write_out{static_cast<u32>(put), 0});
  return 0;
}

// A close() in the guest: what the host's file system says at a close, it hears.
int Server::flush(Call& call) {
  const auto in = call.body.take<fuse_flush_in>();
  if (!in) return malformed();
  const HandlePtr file = handles_.find(in->fh, call.node(), false);
  if (file == nullptr) return EBADF;
  const int copy = ::fcntl(file->fd.get(), F_DUPFD_CLOEXEC, 3);
  return copy >= 0 && ::close(copy) == 0 ? 0 : errno;
}

int Server::release(Call& call) {
  const auto in = call.body.take<fuse_release_in>();
  if (!in) return malformed();
  return handles_.close(in->fh, call.node(), false) ? 0 : EBADF;
}

int Server::fsync_handle(Call& call, bool of_folder) {
  const auto in = call.body.take<fuse_fsync_in>();
  if (!in) return malformed();
  const HandlePtr file = handles_.find(in->fh, call.node(), of_folder);
  if (file == nullptr) return EBADF;
  if (!file->fd) return 0;
  const bool data_only = (in->fsync_flags & FUSE_FSYNC_FDATASYNC) != 0;
  return (data_only ? ::fdatasync(file->fd.get()) : ::fsync(file->fd.get())) == 0 ? 0 : errno;
}

int Server::fsync(Call& call) { return fsync_handle(call, false); }

int Server::fallocate(Call& call) {
  const auto in = call.body.take<fuse_fallocate_in>();
  if (!in || !good_range(in->offset, in->length) || in->length == 0) return malformed();
  constexpr u32 kKnown = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
  if ((in->mode & ~kKnown) != 0) return EOPNOTSUPP;
  const HandlePtr file = handles_.find(in->fh, call.node(), false);
  if (file == nullptr) return EBADF;
  const int mode = static_cast<int>(in->mode);
  return ::fallocate(file->fd.get(), mode, static_cast<off_t>(in->offset), static_cast<off_t>(in->length)) == 0 ? 0
                                                                                                                : errno;
}

int Server::lseek(Call& call) {
  const auto in = call.body.take<fuse_lseek_in>();
  if (!in || !good_range(in->offset, 0) || (in->whence != SEEK_DATA && in->whence != SEEK_HOLE)) return malformed();
  const HandlePtr file = handles_.find(in->fh, call.node(), false);
  if (file == nullptr) return EBADF;
  const off_t at = ::lseek(file->fd.get(), static_cast<off_t>(in->offset), static_cast<int>(in->whence));
  if (at < 0) return errno;
  call.reply.put(fuse_lseek_out{static_cast<u64>(at)});
  return 0;
}

int Server::copy_file_range(Call& call) {
  const auto in = call.body.take<fuse_copy_file_range_in>();
  if (!in || in->flags != 0 || !good_range(in->off_in, in->len) || !good_range(in->off_out, in->len))
    return malformed();
  const HandlePtr from = handles_.find(in->fh_in, call.node(), false);
  const HandlePtr to = handles_.find(in->fh_out, in->nodeid_out, false);
  if (from == nullptr || to == nullptr) return EBADF;
  auto from_offset = static_cast<off_t>(in->off_in), to_offset = static_cast<off_t>(in->off_out);
  const ssize_t copied =
      ::copy_file_range(from->fd.get(), &from_offset, to->fd.get(), &to_offset, std::min<u64>(in->len, kMostCopied), 0);
  if (copied < 0) return errno;
  call.reply.put(fuse_write_out{static_cast<u32>(copied), 0});
  return 0;
}

int Server::syncfs(Call& call) {
  const NodePtr of = node(call.node());
  if (of == nullptr) return kStale;
  if (of == root_ || of->read_only) return 0;
  const UniqueFd opened{reopen(*of, O_RDONLY | O_DIRECTORY)};
  return opened && ::syncfs(opened.get()) == 0 ? 0 : errno;
}

}  // namespace bulkhead::fs
