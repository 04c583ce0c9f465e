// A tap device: the zone's frames are those of a network device of this host [linux "Universal TUN/TAP device driver"].
// Several queues, and tun's header in front of each frame, so that checksums and segmentation are left to the host.
#pragma once
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "net/end.h"

namespace bulkhead::net {

class TapQueue final : public EndQueue {
 public:
  explicit TapQueue(UniqueFd fd) : fd_{std::move(fd)}, buffer_(kMaxFrame + 1) {}
  int descriptor() const override { return fd_.get(); }
  Sent send(const FrameHeader& header, std::span<const IoBuffer> frame) override;
  Received receive(FrameHeader& header, std::span<std::byte>& frame) override;

 private:
  UniqueFd fd_;
  std::vector<std::byte> buffer_;
};

class Tap final : public End {
 public:
  // Opens `name` in the current namespace, or makes it: then it goes when we go. "bh%d": the kernel chooses the number.
  // `queues`: at most; fewer where the device has only one. Errors: no permission, or the device is no tap or busy.
  static Result<std::unique_ptr<Tap>> open(const std::string& name, unsigned queues);

  const std::string& name() const { return name_; }
  bool made() const { return made_; }

  std::string description() const override { return "the tap device " + name_; }
  unsigned queue_count() const override { return static_cast<unsigned>(queues_.size()); }
  EndQueue& queue(unsigned index) override { return *queues_[index]; }
  Offloads takes() const override { return takes_; }
  void set_accepted(Offloads offloads) override;
  void set_active(unsigned count) override;

 private:
  Tap() = default;
  std::string name_;
  bool made_ = false;
  Offloads takes_ = 0;
  std::vector<std::unique_ptr<TapQueue>> queues_;
  unsigned active_ = 0;
};

}  // namespace bulkhead::net
