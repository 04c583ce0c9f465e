#include "net/user/stream_queue.h"

#include <limits.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/big_endian.h"

namespace bulkhead::net {
namespace {

constexpr std::size_t kLengthBytes = 4, kBufferBytes = 512 * 1024, kMostPieces = 256;

bool again(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR || error == ENOBUFS; }

}  // namespace

StreamQueue::StreamQueue(UniqueFd socket) : socket_{std::move(socket)}, buffer_(kBufferBytes) {}

bool StreamQueue::write_rest() {
  while (!rest_.empty()) {
    const ssize_t sent = ::send(socket_.get(), rest_.data(), rest_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && again(errno)) return false;
    if (sent <= 0) gone_ = true;
    if (gone_) rest_.clear();
    rest_.erase(rest_.begin(), rest_.begin() + std::max<ssize_t>(gone_ ? 0 : sent, 0));
  }
  return true;
}

void StreamQueue::flush() { write_rest(); }

Sent StreamQueue::send(const FrameHeader&, std::span<const IoBuffer> frame) {
  if (!write_rest()) return Sent::kFull;
  if (gone_) return Sent::kGone;
  if (frame.size() > kMostPieces) return Sent::kRefused;
  iovec pieces[kMostPieces + 1];
  std::byte length[kLengthBytes];
  std::size_t bytes = kLengthBytes;
  pieces[0] = {length, kLengthBytes};
  for (std::size_t i = 0; i < frame.size(); ++i) {
    pieces[i + 1] = {frame[i].data, frame[i].length};
    bytes += frame[i].length;
  }
  store_be<u32>(length, static_cast<u32>(bytes - kLengthBytes));
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = frame.size() + 1;
  const ssize_t sent = ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0 && again(errno)) return Sent::kFull;
  if (sent < 0) {
    gone_ = true;
    return Sent::kGone;
  }
  std::size_t skip = static_cast<std::size_t>(sent);
  if (skip == bytes) return Sent::kDone;
  for (std::size_t i = 0; i <= frame.size(); ++i) {
    const std::size_t taken = std::min(skip, pieces[i].iov_len);
    const auto* const data = static_cast<const std::byte*>(pieces[i].iov_base);
    rest_.insert(rest_.end(), data + taken, data + pieces[i].iov_len);
    skip -= taken;
  }
  return Sent::kDone;
}

Received StreamQueue::receive(FrameHeader& header, std::span<std::byte>& frame) {
  header = {.flags = kDataValid};
  while (!gone_) {
    if (end_ - start_ >= kLengthBytes) {
      const u32 length = load_be<u32>(&buffer_[start_]);
      if (length > kMaxFrame) break;  // not our language
      if (end_ - start_ >= kLengthBytes + length) {
        frame = std::span{buffer_}.subspan(start_ + kLengthBytes, length);
        start_ += kLengthBytes + length;
        return Received::kFrame;
      }
    }
    if (start_ == end_) start_ = end_ = 0;
    if (buffer_.size() - start_ < kLengthBytes + kMaxFrame) {
      std::memmove(buffer_.data(), &buffer_[start_], end_ - start_);
      end_ -= start_;
      start_ = 0;
    }
    const ssize_t got = ::recv(socket_.get(), &buffer_[end_], buffer_.size() - end_, MSG_DONTWAIT);
    if (got < 0 && again(errno)) return Received::kNothing;
    if (got <= 0) break;
    end_ += static_cast<std::size_t>(got);
  }
  gone_ = true;
  return Received::kGone;
}

}  // namespace bulkhead::net
