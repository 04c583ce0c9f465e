// A file server for the FUSE protocol [linux fuse.h], 7.31 and later. Fidelity: all that Linux asks of a virtio-fs
// device without DAX. Locks are the guest kernel's own (between its processes, not with the host's). Left out: ioctl,
// poll, POSIX ACLs, notifications, submounts (device numbers are one; file numbers are unique).
//
// The guest sees one root folder, which cannot be changed, with the shares in it by name.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "fs/server/counters.h"
#include "fs/server/handles.h"
#include "fs/server/inodes.h"
#include "fs/server/wire.h"

namespace bulkhead::fs {

// One folder or file that the zone may use.
struct Share {
  std::string name;  // one component
  UniqueFd root;     // O_PATH, of a folder or a regular file
  bool read_only = false;
};

struct ServerConfig {
  bool switch_users = false;                  // we are root, and create files as who the guest says
  std::string descriptors = "/proc/self/fd";  // where that is, for O_PATH descriptors are opened for use by it
  u64 most_nodes = 512 * 1024;                // known to the guest at once; each costs a descriptor
  u64 most_handles = 64 * 1024;
  u32 valid_seconds = 1;  // how long the guest may believe names and attributes without asking again
};

class Server {
 public:
  // `counts` outlives us.
  Server(std::vector<Share> shares, ServerConfig config, Counts& counts);

  // Any thread. The reply, in `reply`'s memory; empty where the protocol has none.
  std::span<const std::byte> handle(std::span<const std::byte> request, Reply& reply);

 private:
  // What a request's code works with. Each returns an errno, or 0 and what it put into the reply.
  struct Call {
    const fuse_in_header& header;
    Reader body;
    Reply& reply;
    u64 node() const { return header.nodeid; }
  };
  using Code = int (Server::*)(Call&);
  static Code code_for(u32 opcode);

  int init(Call& call);
  int destroy(Call& call);
  // names.cc
  int lookup(Call& call);
  int forget(Call& call);
  int batch_forget(Call& call);
  int readlink(Call& call);
  int symlink(Call& call);
  int mknod(Call& call);
  int mkdir(Call& call);
  int unlink(Call& call);
  int rmdir(Call& call);
  int rename(Call& call);
  int rename2(Call& call);
  int link(Call& call);
  int create(Call& call);
  // attributes.cc
  int getattr(Call& call);
  int setattr(Call& call);
  int statfs(Call& call);
  int access(Call& call);
  // xattrs.cc
  int setxattr(Call& call);
  int getxattr(Call& call);
  int listxattr(Call& call);
  int removexattr(Call& call);
  // files.cc
  int open(Call& call);
  int read(Call& call);
  int write(Call& call);
  int flush(Call& call);
  int release(Call& call);
  int fsync(Call& call);
  int fallocate(Call& call);
  int lseek(Call& call);
  int copy_file_range(Call& call);
  int syncfs(Call& call);
  // folders.cc
  int opendir(Call& call);
  int readdir(Call& call);
  int readdirplus(Call& call);
  int releasedir(Call& call);
  int fsyncdir(Call& call);

  int malformed() {
    counts_.add(Count::kMalformed);
    return EINVAL;
  }
  int forbidden(int error = EPERM) {
    counts_.add(Count::kForbidden);
    return error;
  }
  // The node of the request, or of that number. Null: there is none; it was counted, the answer is kStale.
  static constexpr int kStale = ESTALE;
  NodePtr node(u64 id);
  // The same for a folder in which names are to be looked up or changed.
  int folder(u64 id, NodePtr& out, bool change);
  int writable(const Node& node);
  // The last name of a request. An errno if it is none.
  int name(Call& call, std::string_view& out, bool last = true);
  static bool good_name(std::string_view name) {
    return !name.empty() && name.size() <= kMaxName && name != "." && name != ".." && !name.contains('/') &&
           !name.contains('\0');
  }
  int root_lookup(std::string_view name, fuse_entry_out& out);
  int look_up(const Node& parent, const char* name, fuse_entry_out& out);
  // Of a file that is open as O_PATH; takes the descriptor.
  int enter(UniqueFd fd, u32 share, bool read_only, bool share_root, fuse_entry_out& out);
  int put_entry(Call& call, const Node& parent, const char* name);
  int move(Call& call, u64 to, u32 flags);
  int attributes(const Node& node, int fd, fuse_attr& out);
  void root_attributes(fuse_attr& out) const;
  void put_attributes(Call& call, const fuse_attr& attributes);
  fuse_attr guest_attributes(const struct statx& host);
  // Opens for use what a node stands for. -1 and errno.
  int reopen(const Node& node, int flags) const;
  std::string descriptor_path(const Node& node) const;
  static int open_flags(u32 guest);
  int remove(Call& call, int flags);
  int read_folder(Call& call, bool plus);
  int read_root(Call& call, const fuse_read_in& in, bool plus);
  int fsync_handle(Call& call, bool folder);
  bool allowed_attribute(std::string_view name) const;

  const std::vector<Share> shares_;
  const ServerConfig config_;
  Counts& counts_;
  NodeTable nodes_;
  HandleTable handles_;
  const NodePtr root_;
  std::atomic<bool> begun_{false};
};

}  // namespace bulkhead::fs
