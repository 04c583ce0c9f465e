#include "fs/server/server.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

namespace bulkhead::fs {
namespace {

constexpr u32 kOldestMinor = 31;  // Linux 5.4
constexpr u32 kPagesOfData = kMaxData / 4096;

// No FUSE_DONT_MASK: the guest's kernel applies umasks. No FUSE_POSIX_LOCKS, FUSE_FLOCK_LOCKS: it keeps locks itself.
// FUSE_HANDLE_KILLPRIV_V2: we take set-user-ID bits away, so it need not ask for them before every write.
constexpr u64 kFlags = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_AUTO_INVAL_DATA |
                       FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS |
                       FUSE_MAX_PAGES | FUSE_HANDLE_KILLPRIV_V2;

bool has_reply(u32 opcode) { return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET && opcode != FUSE_INTERRUPT; }

}  // namespace

Server::Server(std::vector<Share> shares, ServerConfig config, Counts& counts)
    : shares_{std::move(shares)},
      config_{config},
      counts_{counts},
      nodes_{counts, config.most_nodes},
      handles_{counts, config.most_handles},
      root_{std::make_shared<Node>()} {
  root_->id = FUSE_ROOT_ID;
  root_->type = S_IFDIR;
  root_->read_only = true;
}

Server::Code Server::code_for(u32 opcode) {
  switch (opcode) {  // clang-format off
    case FUSE_LOOKUP: return &Server::lookup;
    case FUSE_FORGET: return &Server::forget;
    case FUSE_GETATTR: return &Server::getattr;
    case FUSE_SETATTR: return &Server::setattr;
    case FUSE_READLINK: return &Server::readlink;
    case FUSE_SYMLINK: return &Server::symlink;
    case FUSE_MKNOD: return &Server::mknod;
    case FUSE_MKDIR: return &Server::mkdir;
    case FUSE_UNLINK: return &Server::unlink;
    case FUSE_RMDIR: return &Server::rmdir;
    case FUSE_RENAME: return &Server::rename;
    case FUSE_LINK: return &Server::link;
    case FUSE_OPEN: return &Server::open;
    case FUSE_READ: return &Server::read;
    case FUSE_WRITE: return &Server::write;
    case FUSE_STATFS: return &Server::statfs;
    case FUSE_RELEASE: return &Server::release;
    case FUSE_FSYNC: return &Server::fsync;
    case FUSE_SETXATTR: return &Server::setxattr;
    case FUSE_GETXATTR: return &Server::getxattr;
    case FUSE_LISTXATTR: return &Server::listxattr;
    case FUSE_REMOVEXATTR: return &Server::removexattr;
    case FUSE_FLUSH: return &Server::flush;
    case FUSE_OPENDIR: return &Server::opendir;
    case FUSE_READDIR: return &Server::readdir;
    case FUSE_RELEASEDIR: return &Server::releasedir;
    case FUSE_FSYNCDIR: return &Server::fsyncdir;
    case FUSE_ACCESS: return &Server::access;
    case FUSE_CREATE: return &Server::create;
    case FUSE_BATCH_FORGET: return &Server::batch_forget;
    case FUSE_FALLOCATE: return &Server::fallocate;
    case FUSE_READDIRPLUS: return &Server::readdirplus;
    case FUSE_RENAME2: return &Server::rename2;
    case FUSE_LSEEK: return &Server::lseek;
    case FUSE_COPY_FILE_RANGE: return &Server::copy_file_range;
    case FUSE_SYNCFS: return &Server::syncfs;
    case FUSE_INIT: return &Server::init;
    case FUSE_DESTROY: return &Server::destroy;
    default: return nullptr;
  }  // clang-format on
}

std::span<const std::byte> Server::handle(std::span<const std::byte> request, Reply& reply) {
  counts_.add(Count::kRequests);
  reply.begin();
  fuse_in_header header{};
  if (request.size() >= sizeof header) std::memcpy(&header, request.data(), sizeof header);
  int error;
  if (request.size() < sizeof header || header.len != request.size() || request.size() > kMaxRequest) {
    error = malformed();
  } else if (const Code code = code_for(header.opcode); code == nullptr) {
    if (header.opcode == FUSE_INTERRUPT) return {};  // nothing here waits
    counts_.add(Count::kUnsupported);
    error = ENOSYS;
  } else if (!begun_ && header.opcode != FUSE_INIT) {
    error = malformed();
  } else {
    Call call{header, Reader{request.subspan(sizeof header)}, reply};
    error = (this->*code)(call);
  }
  if (!has_reply(header.opcode)) return {};
  if (error != 0) counts_.add(Count::kErrors);
  return reply.finish(header.unique, error);
}

// The body grows from version to version; its first 16 bytes are all that we need [linux fuse.h fuse_init_in].
int Server::init(Call& call) {
  const auto in = call.body.take_part<fuse_init_in>(16);
  if (!in) return malformed();
  fuse_init_out out{};
  out.major = FUSE_KERNEL_VERSION;
  out.minor = FUSE_KERNEL_MINOR_VERSION;
  if (in->major > FUSE_KERNEL_VERSION) {  // it asks again, in ours
    call.reply.put(out);
    return 0;
  }
  if (in->major < FUSE_KERNEL_VERSION || in->minor < kOldestMinor) return EPROTO;
  nodes_.clear();  // a new kernel, or a new mount, knows nothing of the old numbers
  handles_.clear();
  out.max_readahead = in->max_readahead;
  out.flags = static_cast<u32>(in->flags & kFlags);
  out.max_background = 64;
  out.congestion_threshold = 48;
  out.max_write = kMaxData;
  out.time_gran = 1;
  out.max_pages = kPagesOfData;
  call.reply.put(out);
  begun_ = true;
  return 0;
}

int Server::destroy(Call&) {
  handles_.clear();
  nodes_.clear();
  begun_ = false;
  return 0;
}

NodePtr Server::node(u64 id) {
  if (id == FUSE_ROOT_ID) return root_;
  NodePtr found = nodes_.find(id);
  if (found == nullptr) counts_.add(Count::kUnknownNodes);
  return found;
}

int Server::writable(const Node& node) {
  if (!node.read_only) return 0;
  counts_.add(Count::kReadOnly);
  return EROFS;
}

int Server::folder(u64 id, NodePtr& out, bool change) {
  out = node(id);
  if (out == nullptr) return kStale;
  if (out->type != S_IFDIR) return ENOTDIR;
  return change ? writable(*out) : 0;
}

int Server::name(Call& call, std::string_view& out, bool last) {
  const auto text = call.body.text();
  if (!text || (last && !call.body.at_end())) return malformed();
  if (text->size() > kMaxName) {
    counts_.add(Count::kBadNames);
    return ENAMETOOLONG;
  }
  if (!good_name(*text)) {
    counts_.add(Count::kBadNames);
    return EINVAL;
  }
  out = *text;
  return 0;
}

std::string Server::descriptor_path(const Node& node) const {
  return fmt::format("{}/{}", config_.descriptors, node.fd.get());
}

int Server::reopen(const Node& node, int flags) const {
  return ::open(descriptor_path(node).c_str(), flags | O_CLOEXEC | O_NOCTTY);
}

}  // namespace bulkhead::fs
