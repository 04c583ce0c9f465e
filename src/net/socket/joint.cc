#include "net/socket/joint.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace bulkhead::net {
namespace {

constexpr std::size_t kMostPieces = 256;

Result<UniqueFd> make_socket() {
  UniqueFd socket{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (!socket) return fail_errno("making a socket");
  const int bytes = 1 << 20;  // as much as is allowed
  ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  return socket;
}

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), std::min(path.size(), sizeof address.sun_path - 1));
  return address;
}

}  // namespace

Result<std::unique_ptr<Joint>> Joint::open(const std::string& path) {
  std::unique_ptr<Joint> joint{new Joint{path}};
  BH_TRY(joint->join());
  return joint;
}

Joint::~Joint() {
  if (listener_) ::unlink(path_.c_str());
}

Result<void> Joint::join() {
  BH_ASSIGN(UniqueFd socket, make_socket());
  const sockaddr_un address = address_of(path_);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    peer_ = std::move(socket);
    return {};
  }
  if (errno == EAGAIN) return fail("{}: two zones are joined there already; use another path", path_);
  if (errno != ENOENT && errno != ECONNREFUSED) return fail_errno("connecting to {}", path_);
  return listen();
}

Result<void> Joint::listen() {
  struct stat status{};
  if (::lstat(path_.c_str(), &status) == 0) {  // of somebody who is gone
    if (!S_ISSOCK(status.st_mode)) return fail("{} is there and is no socket", path_);
    ::unlink(path_.c_str());
  }
  BH_ASSIGN(UniqueFd socket, make_socket());
  const sockaddr_un address = address_of(path_);
  const mode_t before = ::umask(0077);
  const bool bound = ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  ::umask(before);
  if (!bound || ::listen(socket.get(), 0) != 0) return fail_errno("listening at {}", path_);
  listener_ = std::move(socket);
  return {};
}

void Joint::lose_peer() {
  peer_.reset();
  if (!listener_) (void)listen();  // without it nothing comes any more, and the zone goes on
}

Sent Joint::send(const FrameHeader& header, std::span<const IoBuffer> frame) {
  if (!peer_ || frame.size() > kMostPieces) return Sent::kRefused;
  iovec pieces[kMostPieces + 1];
  pieces[0] = {const_cast<FrameHeader*>(&header), sizeof header};
  for (std::size_t i = 0; i < frame.size(); ++i) pieces[i + 1] = {frame[i].data, frame[i].length};
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = frame.size() + 1;
  if (::sendmsg(peer_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return Sent::kDone;
  if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS) return Sent::kFull;
  return Sent::kRefused;  // receive() finds out
}

Received Joint::receive(FrameHeader& header, std::span<std::byte>& frame) {
  if (!peer_ && listener_) {
    peer_ = UniqueFd{::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)};
    const int bytes = 1 << 20;
    if (peer_) ::setsockopt(peer_.get(), SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  }
  while (peer_) {
    const ssize_t got = ::recv(peer_.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return Received::kNothing;
    if (got <= 0) {
      lose_peer();
      break;
    }
    const std::size_t size = static_cast<std::size_t>(got);
    if (size < sizeof header) continue;
    std::memcpy(&header, buffer_.data(), sizeof header);
    frame = std::span{buffer_}.subspan(sizeof header, size - sizeof header);
    if (plausible(header, frame.size())) return Received::kFrame;
  }
  return Received::kNothing;
}

}  // namespace bulkhead::net
