#include "zone/session/host_stream.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <string>

namespace bulkhead::zone {

HostStream::HostStream(int fd, Direction direction) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) {
    open_ = false;
    return;
  }
  terminal_ = ::isatty(fd) == 1;
  if (S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode)) {
    const int access = direction == Direction::kInput ? O_RDONLY : O_WRONLY;
    fd_ = UniqueFd{::open(("/proc/self/fd/" + std::to_string(fd)).c_str(), access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)};
  }
  if (fd_) {
    // /dev/null and its like cannot be waited for by every kind of poll, but are never slow either.
    always_ready_ = S_ISCHR(status.st_mode) && !terminal_;
    return;
  }
  fd_ = UniqueFd{::fcntl(fd, F_DUPFD_CLOEXEC, 0)};
  open_ = static_cast<bool>(fd_);
  if (S_ISSOCK(status.st_mode)) how_ = How::kSocket;
  // Without a second opening: a pipe that polls as writable takes PIPE_BUF bytes without blocking [pipe(7)].
  else if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
    how_ = How::kSmallPieces;
  else
    always_ready_ = true;
}

std::size_t HostStream::read(std::span<std::byte> out) {
  if (!open_ || out.empty()) return 0;
  const ssize_t size = how_ == How::kSocket ? ::recv(fd_.get(), out.data(), out.size(), MSG_DONTWAIT)
                                            : ::read(fd_.get(), out.data(), out.size());
  if (size > 0) return static_cast<std::size_t>(size);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  open_ = false;
  return 0;
}

std::size_t HostStream::write(std::string_view bytes) {
  if (!open_ || bytes.empty()) return 0;
  if (how_ == How::kSmallPieces) {
    pollfd ready{fd_.get(), POLLOUT, 0};
    if (::poll(&ready, 1, 0) <= 0) return 0;
    bytes = bytes.substr(0, PIPE_BUF);
  }
  const ssize_t size = how_ == How::kSocket ? ::send(fd_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL)
                                            : ::write(fd_.get(), bytes.data(), bytes.size());
  if (size >= 0) return static_cast<std::size_t>(size);
  if (errno != EAGAIN && errno != EINTR) open_ = false;
  return 0;
}

}  // namespace bulkhead::zone
