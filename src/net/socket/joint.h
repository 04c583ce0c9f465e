// Two zones joined by a Unix socket: each frame is a packet of it, behind its header, so that checksums and large
// frames need not be finished on the way. Whoever comes first listens, the other connects; when one goes, the one that
// stays listens for the next. What the other zone says is not believed.
#pragma once
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "net/end.h"

namespace bulkhead::net {

class Joint final : public End, private EndQueue {
 public:
  // Errors: the path cannot be used, or two are joined there already.
  static Result<std::unique_ptr<Joint>> open(const std::string& path);
  ~Joint() override;

  std::string description() const override { return "the socket " + path_; }
  unsigned queue_count() const override { return 1; }
  EndQueue& queue(unsigned) override { return *this; }
  Offloads takes() const override { return kAllOffloads; }

 private:
  explicit Joint(std::string path) : path_{std::move(path)}, buffer_(sizeof(FrameHeader) + kMaxFrame + 1) {}
  Result<void> join();
  Result<void> listen();
  void lose_peer();
  int descriptor() const override { return peer_ ? peer_.get() : listener_.get(); }
  Sent send(const FrameHeader& header, std::span<const IoBuffer> frame) override;
  Received receive(FrameHeader& header, std::span<std::byte>& frame) override;

  const std::string path_;
  UniqueFd listener_, peer_;
  std::vector<std::byte> buffer_;
};

}  // namespace bulkhead::net
