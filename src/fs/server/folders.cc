// Requests about folders' contents.
#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

#include "fs/server/server.h"

namespace bulkhead::fs {
namespace {

struct HostEntry {  // as getdents64(2) gives it; the name behind it, with a NUL
  u64 inode;
  std::int64_t next;
  u16 size;
  u8 type;
};
constexpr std::size_t kNameOffset = 19;  // unaligned, and so not the struct's size

std::size_t padded(std::size_t size) { return (size + 7) & ~std::size_t{7}; }
std::size_t size_of(std::string_view name, bool plus) {
  return padded((plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET) + name.size());
}

void put(Reply& reply, const fuse_entry_out* entry, u64 inode, u64 next, u32 type, std::string_view name) {
  if (entry != nullptr) reply.put(*entry);
  fuse_dirent out{};
  out.ino = inode;
  out.off = next;
  out.namelen = static_cast<u32>(name.size());
  out.type = type;
  reply.put_bytes(&out, FUSE_NAME_OFFSET);
  reply.put_bytes(name.data(), name.size());
  reply.zeroes(padded(FUSE_NAME_OFFSET + name.size()) - FUSE_NAME_OFFSET - name.size());
}

}  // namespace

int Server::opendir(Call& call) {
  if (!call.body.take<fuse_open_in>()) return malformed();
  NodePtr of;
  if (const int error = folder(call.node(), of, false)) return error;
  UniqueFd opened;
  if (of != root_) {
    if (of->read_only) opened = UniqueFd{reopen(*of, O_RDONLY | O_DIRECTORY | O_NOATIME)};
    if (!opened) opened = UniqueFd{reopen(*of, O_RDONLY | O_DIRECTORY)};
    if (!opened) return errno;
  }
  fuse_open_out out{};
  out.fh = handles_.open(std::move(opened), of->id, true);
  if (out.fh == 0) return ENFILE;
  call.reply.put(out);
  return 0;
}

int Server::releasedir(Call& call) {
  const auto in = call.body.take<fuse_release_in>();
  if (!in) return malformed();
  return handles_.close(in->fh, call.node(), true) ? 0 : EBADF;
}

int Server::fsyncdir(Call& call) { return fsync_handle(call, true); }
int Server::readdir(Call& call) { return read_folder(call, false); }
int Server::readdirplus(Call& call) { return read_folder(call, true); }

int Server::read_root(Call& call, const fuse_read_in& in, bool plus) {
  for (u64 at = in.offset; at < shares_.size(); ++at) {
    const std::string& name = shares_[at].name;
    if (call.reply.payload() + size_of(name, plus) > in.size) break;
    fuse_entry_out entry{};
    if (plus && root_lookup(name, entry) != 0) entry = {};
    put(call.reply, plus ? &entry : nullptr, entry.attr.ino != 0 ? entry.attr.ino : at + 2, at + 1,
        (entry.attr.mode & S_IFMT) >> 12, name);
  }
  return 0;
}

// The guest's offsets are the host's [getdents64(2)], which stay right while the folder changes. Only what fits is
// looked up: each entry with a node is one that the guest has to forget.
int Server::read_folder(Call& call, bool plus) {
  const auto in = call.body.take<fuse_read_in>();
  if (!in || in->size > kMaxData) return malformed();
  const HandlePtr handle = handles_.find(in->fh, call.node(), true);
  const NodePtr of = node(call.node());
  if (handle == nullptr || of == nullptr) return EBADF;
  if (of == root_) return read_root(call, *in, plus);
  const Lock lock{handle->position};
  if (::lseek(handle->fd.get(), static_cast<off_t>(in->offset), SEEK_SET) < 0) return errno;
  // A host entry is never larger than what we make of it, so what fits here is not far more than what is asked for.
  alignas(8) char entries[32 * 1024];
  const std::size_t most = std::min<std::size_t>(sizeof entries, std::max<std::size_t>(in->size, 512));
  while (true) {
    const long got = ::syscall(SYS_getdents64, handle->fd.get(), entries, most);
    if (got < 0 && call.reply.payload() == 0) return errno;
    if (got <= 0) return 0;
    for (long at = 0; at < got;) {
      HostEntry host;
      std::memcpy(&host, entries + at, kNameOffset);
      const std::string_view name{entries + at + kNameOffset};
      at += host.size;
      if (call.reply.payload() + size_of(name, plus) > in->size) return 0;
      const bool dots = name == "." || name == "..";
      if (!dots && !good_name(name)) continue;
      fuse_entry_out entry{};
      // What has gone meanwhile has no node; the guest looks it up itself then.
      if (plus && !dots && look_up(*of, name.data(), entry) != 0) entry = {};
      const u64 inode = entry.nodeid != 0 ? entry.attr.ino : nodes_.guest_inode(of->key.device, host.inode);
      put(call.reply, plus ? &entry : nullptr, of->share_root && dots ? u64{FUSE_ROOT_ID} : inode,
          static_cast<u64>(host.next), host.type, name);
    }
    if (call.reply.payload() + size_of("", plus) * 2 > in->size) return 0;
  }
}

}  // namespace bulkhead::fs
