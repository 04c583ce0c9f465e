#include "device/core/fs/fs_core.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>

#include "base/assert.h"
#include "base/log.h"

namespace bulkhead::device {
namespace {

constexpr std::size_t kMaxPieces = 512;  // of one system call [IOV_MAX 1024]

std::size_t pieces_of(std::span<const IoBuffer> buffers, std::span<iovec> out) {
  const std::size_t count = std::min(buffers.size(), out.size());
  for (std::size_t i = 0; i < count; ++i) out[i] = {buffers[i].data, buffers[i].length};
  return count;
}

// The part of `space` behind its first `skip` bytes, `bytes` long.
std::vector<IoBuffer> part(std::span<const IoBuffer> space, u64 skip, u64 bytes) {
  std::vector<IoBuffer> out;
  for (const IoBuffer& buffer : space) {
    if (bytes == 0) break;
    const u64 skipped = std::min<u64>(skip, buffer.length);
    skip -= skipped;
    const u64 length = std::min<u64>(bytes, buffer.length - skipped);
    if (length > 0) out.push_back({buffer.data + skipped, length});
    bytes -= length;
  }
  return out;
}

}  // namespace

FsCore::FsCore(std::vector<UniqueFd> sockets)
    : lanes_(sockets.size()), events_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)}, scratch_(64_KiB) {
  BH_ASSERT(events_ && !sockets.empty() && sockets.size() <= kMaxLanes);
  for (unsigned i = 0; i < sockets.size(); ++i) {
    lanes_[i].socket = std::move(sockets[i]);
    lanes_[i].request.lane = i;
  }
  // Signals belong to the threads that the monitor chose for them.
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread{[this] { run(); }};
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::pthread_setname_np(thread_.native_handle(), "bh-files");
}

FsCore::~FsCore() {
  exit_ = true;
  kick();
  thread_.join();
}

void FsCore::kick() {
  const u64 one = 1;
  (void)!::write(events_.get(), &one, sizeof one);
}

void FsCore::set_source(FsSource* source) {
  {
    const Lock lock{mutex_};
    source_ = source;
    for (Lane& lane : lanes_) {  // what is in flight was another source's, and so is its memory
      if (lane.phase == Phase::kReceiving) give_up(lane.request.lane);
      if (lane.phase != Phase::kSending) continue;
      lane.phase = Phase::kDead;
      ::shutdown(lane.socket.get(), SHUT_RDWR);
      depth_.fetch_sub(1, std::memory_order_relaxed);
    }
  }
  kick();
}

void FsCore::paused(const std::function<void()>& change) {
  const Lock lock{mutex_};
  change();
}

void FsCore::give_up(unsigned index) {
  Lane& lane = lanes_[index];
  lane.given_up = true;
  if (lane.phase == Phase::kReceiving && lane.reply_length != 0) {  // the rest goes nowhere
    u64 left = 0;
    for (std::size_t i = lane.moving_first; i < lane.moving.size(); ++i) left += lane.moving[i].length;
    lane.moving.clear();
    lane.moving_first = 0;
    for (; left > 0; left -= std::min<u64>(left, scratch_.size()))
      lane.moving.push_back({scratch_.data(), std::min<u64>(left, scratch_.size())});
  }
}

void FsCore::run() {
  bool busy = false;
  while (!exit_) {
    pollfd entries[1 + kMaxLanes] = {{events_.get(), POLLIN, 0}};
    {
      const Lock lock{mutex_};
      for (std::size_t i = 0; i < lanes_.size(); ++i) {
        const Lane& lane = lanes_[i];
        const short wanted = lane.phase == Phase::kSending ? POLLOUT : POLLIN;
        entries[1 + i] = {lane.phase == Phase::kDead ? -1 : lane.socket.get(), wanted, 0};
      }
    }
    ::poll(entries, 1 + lanes_.size(), busy ? 0 : -1);
    u64 count;
    if (entries[0].revents != 0) (void)!::read(events_.get(), &count, sizeof count);
    const Lock lock{mutex_};
    for (std::size_t i = 0; i < lanes_.size(); ++i)  // what is not asked for is wrong, or the server's end
      if (lanes_[i].phase == Phase::kIdle && entries[1 + i].revents != 0) lost(lanes_[i]);
    busy = service();
  }
}

// True: look again at once.
bool FsCore::service() {
  bool alive = false, more = false;
  for (Lane& lane : lanes_) {
    if (lane.phase == Phase::kSending && !send(lane)) lost(lane);
    if (lane.phase == Phase::kReceiving && !receive(lane)) lost(lane);
    for (int turns = 0; lane.phase == Phase::kIdle && start(lane); ++turns) {
      if (turns == 64) {  // messages without a reply
        more = true;
        break;
      }
    }
    alive |= lane.phase != Phase::kDead;
  }
  if (!alive && source_ != nullptr) more = refuse_some();
  if (std::exchange(signal_, false) && source_ != nullptr) source_->signal();
  return more;
}

bool FsCore::refuse_some() {
  for (int turns = 0; turns < 64; ++turns) {
    if (!source_->next(lanes_[0].request)) return false;
    lanes_[0].given_up = false;
    answer_error(lanes_[0], ENOTCONN);
  }
  return true;
}

// True if a request was begun.
bool FsCore::start(Lane& lane) {
  lane.request.rest.clear();
  if (source_ == nullptr || !source_->next(lane.request)) return false;
  lane.given_up = false;
  const fuse_in_header& header = lane.request.header;
  counters_[kRequests].add();
  counters_[kBytesOut].add(header.len);
  by_opcode_[header.opcode < kOpcodes ? header.opcode : 0].fetch_add(1, std::memory_order_relaxed);
  const u64 depth = depth_.fetch_add(1, std::memory_order_relaxed) + 1;
  if (depth > deepest()) deepest_.store(depth, std::memory_order_relaxed);
  lane.begin = clock_.now();
  lane.moving.assign(1, {reinterpret_cast<std::byte*>(&lane.request.header), sizeof header});
  lane.moving.insert(lane.moving.end(), lane.request.rest.begin(), lane.request.rest.end());
  lane.moving_first = 0;
  lane.phase = Phase::kSending;
  if (!send(lane)) lost(lane);
  return true;
}

void FsCore::advance(Lane& lane, std::size_t bytes) {
  while (bytes > 0) {
    IoBuffer& first = lane.moving[lane.moving_first];
    const std::size_t taken = std::min<std::size_t>(bytes, first.length);
    first.data += taken;
    first.length -= taken;
    bytes -= taken;
    if (first.length == 0) ++lane.moving_first;
  }
}

bool FsCore::send(Lane& lane) {
  while (lane.moving_first < lane.moving.size()) {
    iovec pieces[kMaxPieces];
    msghdr message{};
    message.msg_iov = pieces;
    message.msg_iovlen = pieces_of(std::span{lane.moving}.subspan(lane.moving_first), pieces);
    const ssize_t sent = ::sendmsg(lane.socket.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return errno == EAGAIN;
    advance(lane, static_cast<std::size_t>(sent));
  }
  lane.reply_length = 0;
  lane.head_got = 0;
  lane.too_long = false;
  lane.phase = Phase::kReceiving;
  if (!lane.request.wants_reply()) finish(lane, 0);
  return true;
}

bool FsCore::receive(Lane& lane) {
  while (lane.reply_length == 0) {
    const ssize_t got =
        ::recv(lane.socket.get(), lane.head.data() + lane.head_got, lane.head.size() - lane.head_got, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return got < 0 && errno == EAGAIN;
    lane.head_got += static_cast<std::size_t>(got);
    if (lane.head_got >= sizeof(fuse_out_header) && !begin_reply(lane)) return false;
  }
  return receive_rest(lane);
}

// The reply's beginning is here: judge it, and prepare for the rest.
bool FsCore::begin_reply(Lane& lane) {
  fuse_out_header header;
  std::memcpy(&header, lane.head.data(), sizeof header);
  if (header.len < sizeof header || header.len > kMaxMessage || header.len < lane.head_got ||
      header.unique != lane.request.header.unique)
    return false;
  lane.reply_length = header.len;
  lane.moving.clear();
  lane.moving_first = 0;
  const u64 left = header.len - lane.head_got;
  if (!lane.given_up && source_ != nullptr) {
    const std::span<const IoBuffer> space = source_->reply_space(lane.request.lane, header.len);
    lane.too_long = space.empty();
    if (header.error != 0) counters_[kErrors].add();
    if (!lane.too_long) {
      block::copy_in(space, 0, std::span{lane.head}.first(lane.head_got));
      lane.moving = part(space, lane.head_got, left);
      return true;
    }
  }
  for (u64 rest = left; rest > 0; rest -= std::min<u64>(rest, scratch_.size()))
    lane.moving.push_back({scratch_.data(), std::min<u64>(rest, scratch_.size())});
  return true;
}

bool FsCore::receive_rest(Lane& lane) {
  while (lane.moving_first < lane.moving.size()) {
    iovec pieces[kMaxPieces];
    msghdr message{};
    message.msg_iov = pieces;
    message.msg_iovlen = pieces_of(std::span{lane.moving}.subspan(lane.moving_first), pieces);
    const ssize_t got = ::recvmsg(lane.socket.get(), &message, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return got < 0 && errno == EAGAIN;
    advance(lane, static_cast<std::size_t>(got));
  }
  if (lane.too_long)
    answer_error(lane, EIO);
  else
    finish(lane, lane.reply_length);
  return true;
}

void FsCore::finish(Lane& lane, u32 bytes) {
  const u32 opcode = lane.request.header.opcode;
  latency_[opcode < kOpcodes ? opcode : 0].record(static_cast<u64>(clock_.now() - lane.begin));
  depth_.fetch_sub(1, std::memory_order_relaxed);
  if (lane.request.wants_reply()) counters_[kReplies].add();
  counters_[kBytesIn].add(bytes);
  lane.phase = Phase::kIdle;
  if (lane.given_up || source_ == nullptr) return;
  source_->done(lane.request.lane, bytes);
  signal_ = true;
}

void FsCore::answer_error(Lane& lane, int error) {
  const Phase before = lane.phase;
  const fuse_out_header header{sizeof header, -error, lane.request.header.unique};
  if (lane.given_up || source_ == nullptr) {
    if (before != Phase::kDead) finish(lane, 0);
    return;
  }
  std::span<const IoBuffer> space;
  if (lane.request.wants_reply()) space = source_->reply_space(lane.request.lane, sizeof header);
  if (!space.empty()) block::copy_in(space, 0, std::as_bytes(std::span{&header, 1}));
  const u32 bytes = space.empty() ? 0 : sizeof header;
  counters_[kErrors].add();
  if (before != Phase::kDead) {
    finish(lane, bytes);
    return;
  }
  source_->done(lane.request.lane, bytes);
  signal_ = true;
}

void FsCore::lost(Lane& lane) {
  if (counters_[kServerLost].value() == 0 && !exit_)
    log_warning("the zone's file server has ended: its files are gone until the zone is started again");
  counters_[kServerLost].add();
  if (lane.phase != Phase::kIdle) answer_error(lane, EIO);
  lane.phase = Phase::kDead;
  lane.socket.reset();
}

std::string_view fs_opcode_name(unsigned opcode) {
  switch (opcode) {  // clang-format off
    case FUSE_LOOKUP: return "lookup";
    case FUSE_FORGET: return "forget";
    case FUSE_GETATTR: return "getattr";
    case FUSE_SETATTR: return "setattr";
    case FUSE_READLINK: return "readlink";
    case FUSE_SYMLINK: return "symlink";
    case FUSE_MKNOD: return "mknod";
    case FUSE_MKDIR: return "mkdir";
    case FUSE_UNLINK: return "unlink";
    case FUSE_RMDIR: return "rmdir";
    case FUSE_RENAME: return "rename";
    case FUSE_LINK: return "link";
    case FUSE_OPEN: return "open";
    case FUSE_READ: return "read";
    case FUSE_WRITE: return "write";
    case FUSE_STATFS: return "statfs";
    case FUSE_RELEASE: return "release";
    case FUSE_FSYNC: return "fsync";
    case FUSE_SETXATTR: return "setxattr";
    case FUSE_GETXATTR: return "getxattr";
    case FUSE_LISTXATTR: return "listxattr";
    case FUSE_REMOVEXATTR: return "removexattr";
    case FUSE_FLUSH: return "flush";
    case FUSE_INIT: return "init";
    case FUSE_OPENDIR: return "opendir";
    case FUSE_READDIR: return "readdir";
    case FUSE_RELEASEDIR: return "releasedir";
    case FUSE_FSYNCDIR: return "fsyncdir";
    case FUSE_ACCESS: return "access";
    case FUSE_CREATE: return "create";
    case FUSE_DESTROY: return "destroy";
    case FUSE_IOCTL: return "ioctl";
    case FUSE_BATCH_FORGET: return "batch_forget";
    case FUSE_FALLOCATE: return "fallocate";
    case FUSE_READDIRPLUS: return "readdirplus";
    case FUSE_RENAME2: return "rename2";
    case FUSE_LSEEK: return "lseek";
    case FUSE_COPY_FILE_RANGE: return "copy_file_range";
    case FUSE_SYNCFS: return "syncfs";
    default: return "other";
  }  // clang-format on
}

}  // namespace bulkhead::device
