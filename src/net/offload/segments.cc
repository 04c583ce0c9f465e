#include "net/offload/segments.h"

#include <algorithm>
#include <cstring>

#include "base/big_endian.h"
#include "net/offload/checksum.h"
#include "net/offload/transport.h"

namespace bulkhead::net {
namespace {

constexpr u8 kFin = 0x01, kPush = 0x08, kCongestionReduced = 0x80;
constexpr std::size_t kTcpFlagsAt = 13, kTcpChecksumAt = 16, kUdpChecksumAt = 6;

u8 byte_at(std::span<const std::byte> bytes, std::size_t at) { return std::to_integer<u8>(bytes[at]); }

}  // namespace

bool Segments::begin(const FrameHeader& header, std::span<const std::byte> frame) {
  left_ = done_ = 0;
  count_ = 0;
  gso_ = header.gso & static_cast<u8>(~kGsoEcn);
  frame_ = frame;
  step_ = header.segment_bytes;
  if (step_ == 0 || frame.size() > kMaxFrame) return false;
  const std::optional<Transport> found = find_transport(frame);
  if (!found || found->protocol != (gso_ == kGsoUdp ? kUdp : kTcp)) return false;
  if (gso_ != kGsoUdp && found->version4 != (gso_ == kGsoTcp4)) return false;
  network_ = found->network;
  transport_ = found->transport;
  version4_ = found->version4;
  std::size_t own = 8;
  if (gso_ != kGsoUdp) {
    if (transport_ + 20 > frame.size()) return false;
    own = 4 * (byte_at(frame, transport_ + 12) >> 4);
    if (own < 20) return false;
  }
  headers_ = transport_ + own;
  if (headers_ >= frame.size()) return false;  // without payload it stands for nothing
  left_ = frame.size() - headers_;
  return true;
}

void Segments::adjust_network(std::size_t payload) {
  std::byte* const ip = &out_[network_];
  const std::size_t behind = headers_ - network_ + payload;
  if (!version4_) return store_be<u16>(ip + 4, static_cast<u16>(behind - 40));
  store_be<u16>(ip + 2, static_cast<u16>(behind));
  store_be<u16>(ip + 4, static_cast<u16>(load_be<u16>(ip + 4) + count_));  // each has an identification of its own
  std::memset(ip + 10, 0, 2);
  const u16 sum = static_cast<u16>(~checksum_fold(checksum_add({ip, transport_ - network_})));
  std::memcpy(ip + 10, &sum, sizeof sum);
}

void Segments::adjust_transport(std::size_t payload, bool last) {
  std::byte* const own = &out_[transport_];
  const std::size_t length = headers_ - transport_ + payload;
  std::size_t checksum_at = kUdpChecksumAt;
  if (gso_ == kGsoUdp) {
    store_be<u16>(own + 4, static_cast<u16>(length));
  } else {
    checksum_at = kTcpChecksumAt;
    store_be<u32>(own + 4, load_be<u32>(own + 4) + static_cast<u32>(done_));
    u8 flags = std::to_integer<u8>(own[kTcpFlagsAt]);
    if (!last) flags &= static_cast<u8>(~(kFin | kPush));
    if (count_ != 0) flags &= static_cast<u8>(~kCongestionReduced);
    own[kTcpFlagsAt] = std::byte{flags};
  }
  std::memset(own + checksum_at, 0, 2);
  const std::size_t address = version4_ ? 4 : 16;
  const std::byte* const addresses = &out_[network_ + (version4_ ? 12 : 8)];
  u64 sum = checksum_add({addresses, 2 * address});
  sum += swap_bytes(static_cast<u16>(length));
  sum += swap_bytes(u16{gso_ == kGsoUdp ? kUdp : kTcp});
  u16 value = static_cast<u16>(~checksum_fold(checksum_add({own, length}, sum)));
  if (value == 0) value = 0xffff;
  std::memcpy(own + checksum_at, &value, sizeof value);
}

std::span<std::byte> Segments::next() {
  const std::size_t payload = std::min(step_, left_);
  out_.resize(headers_ + payload);
  std::memcpy(out_.data(), frame_.data(), headers_);
  std::memcpy(out_.data() + headers_, frame_.data() + headers_ + done_, payload);
  adjust_network(payload);
  adjust_transport(payload, payload == left_);
  done_ += payload;
  left_ -= payload;
  ++count_;
  return out_;
}

}  // namespace bulkhead::net
