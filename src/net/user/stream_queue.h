// Frames on a connected stream socket, each behind its length in 4 bytes, big endian: what passt and QEMU's stream
// back ends speak.
#pragma once
#include <vector>

#include "base/fd.h"
#include "net/end.h"

namespace bulkhead::net {

class StreamQueue final : public EndQueue {
 public:
  explicit StreamQueue(UniqueFd socket);  // not blocking
  int descriptor() const override { return socket_.get(); }
  Sent send(const FrameHeader& header, std::span<const IoBuffer> frame) override;
  bool unflushed() const override { return !rest_.empty(); }
  void flush() override;
  Received receive(FrameHeader& header, std::span<std::byte>& frame) override;

 private:
  bool write_rest();  // false: some is left
  UniqueFd socket_;
  std::vector<std::byte> rest_;  // of a frame that the socket took in part
  std::vector<std::byte> buffer_;
  std::size_t start_ = 0, end_ = 0;  // of what was read and not handed out
  bool gone_ = false;
};

}  // namespace bulkhead::net
