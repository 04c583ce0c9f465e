// Our stdin, stdout and stderr without ever blocking, and without changing the mode of a descriptor that other programs
// share with us: O_NONBLOCK belongs to the open file, not to us, so pipes and terminals are opened once more.
#pragma once
#include <optional>
#include <span>
#include <string_view>

#include "base/fd.h"
#include "base/ints.h"

namespace bulkhead::zone {

class HostStream {
 public:
  enum class Direction : u8 { kInput, kOutput };
  HostStream(int fd, Direction direction);

  // What to poll for readiness; -1 when there is nothing to wait for (a regular file, or a closed stream).
  int poll_fd() const { return open_ && !always_ready_ ? fd_.get() : -1; }
  bool always_ready() const { return open_ && always_ready_; }
  bool open() const { return open_; }
  bool is_terminal() const { return terminal_; }

  // Bytes read; 0: nothing now. At the end of the input, and on an error, the stream is open() no more.
  std::size_t read(std::span<std::byte> out);
  // Bytes written; 0: not now. When nobody reads the other end, or on an error, the stream is open() no more.
  std::size_t write(std::string_view bytes);

 private:
  enum class How : u8 { kPlain, kSocket, kSmallPieces };
  UniqueFd fd_;
  How how_ = How::kPlain;
  bool open_ = true, always_ready_ = false, terminal_ = false;
};

}  // namespace bulkhead::zone
