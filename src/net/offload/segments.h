// Cuts a frame that stands for several into those: TCP segments and UDP datagrams, IPv4 and IPv6, with or without a
// VLAN tag. For takers that cannot do it.
#pragma once
#include <vector>

#include "net/frame.h"

namespace bulkhead::net {

class Segments {
 public:
  // `frame` stays as it is until the last next(). False: it is not what `header` says, and nothing comes out of it.
  bool begin(const FrameHeader& header, std::span<const std::byte> frame);
  bool any() const { return left_ != 0; }
  // The next frame, whole with all checksums, valid until the next call. Only where any().
  std::span<std::byte> next();

 private:
  void adjust_network(std::size_t payload);
  void adjust_transport(std::size_t payload, bool last);

  u8 gso_ = kGsoNone;
  bool version4_ = true;
  std::size_t network_ = 0, transport_ = 0, headers_ = 0, step_ = 0;
  std::span<const std::byte> frame_;
  std::size_t done_ = 0, left_ = 0;  // bytes of payload
  u32 count_ = 0;                    // segments that came out
  std::vector<std::byte> out_;
};

}  // namespace bulkhead::net
