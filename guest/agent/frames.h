// Cutting a byte stream into frames, and writing frames. Freestanding: used by the agent and by the monitor.
#pragma once
#include <cstdint>
#include <cstring>
#include <span>

#include "guest/agent/protocol.h"

namespace bulkhead::agent {

struct Frame {
  FrameType type{};
  std::uint8_t stream = 0;
  std::span<const std::byte> payload;
  std::uint32_t word(unsigned index) const {  // the index-th u32 of the payload, which must hold it
    std::uint32_t value;
    std::memcpy(&value, payload.data() + index * 4, 4);
    return value;
  }
  std::uint16_t half(unsigned index) const {
    std::uint16_t value;
    std::memcpy(&value, payload.data() + index * 2, 2);
    return value;
  }
};

inline void encode_header(std::byte (&out)[kHeaderSize], FrameType type, std::uint8_t stream, std::uint32_t length) {
  std::memcpy(out, &length, 4);
  out[4] = static_cast<std::byte>(type);
  out[5] = static_cast<std::byte>(stream);
  out[6] = out[7] = std::byte{0};
}

// True if the payload's length is one that the type may have, and the stream is one that exists.
inline bool well_formed(FrameType type, std::uint8_t stream, std::uint32_t length) {
  if (length > kMaxPayload || stream >= kStreams) return false;
  switch (type) {
    case FrameType::kConfigure:
    case FrameType::kData:
      return length > 0;
    case FrameType::kStart:
    case FrameType::kEndOfStream:
    case FrameType::kAbandon:
    case FrameType::kStarted:
      return length == 0;
    case FrameType::kSignal:
    case FrameType::kWindowSize:
    case FrameType::kCredit:
      return length == 4;
    case FrameType::kHello:
    case FrameType::kExited:
      return length == 8;
    case FrameType::kFailed:
      return length >= 8 && length <= 8 + kMaxText;
  }
  return false;
}

// Collects bytes until a frame is whole. Holds at most one frame; a malformed header is final.
class FrameDecoder {
 public:
  // Calls sink(const Frame&) -> bool for each whole frame, in order. False when a header is malformed or the sink said
  // so; from then on every call is false. The frame's payload is valid only during the call.
  template <class Sink>
  bool feed(std::span<const std::byte> bytes, Sink&& sink) {
    while (good_ && !bytes.empty()) {
      const std::uint32_t wanted = have_ < kHeaderSize ? kHeaderSize : kHeaderSize + length();
      const std::size_t taken = bytes.size() < wanted - have_ ? bytes.size() : wanted - have_;
      std::memcpy(buffer_ + have_, bytes.data(), taken);
      have_ += static_cast<std::uint32_t>(taken);
      bytes = bytes.subspan(taken);
      if (have_ == kHeaderSize && wanted == kHeaderSize) good_ = header_is_good();
      if (good_ && have_ >= kHeaderSize && have_ == kHeaderSize + length()) {
        have_ = 0;
        good_ = sink(Frame{static_cast<FrameType>(buffer_[4]),
                           static_cast<std::uint8_t>(buffer_[5]),
                           {buffer_ + kHeaderSize, length()}});
      }
    }
    return good_;
  }

 private:
  std::uint32_t length() const {
    std::uint32_t value;
    std::memcpy(&value, buffer_, 4);
    return value;
  }
  bool header_is_good() const {
    return buffer_[6] == std::byte{0} && buffer_[7] == std::byte{0} &&
           well_formed(static_cast<FrameType>(buffer_[4]), static_cast<std::uint8_t>(buffer_[5]), length());
  }

  std::byte buffer_[kHeaderSize + kMaxPayload];
  std::uint32_t have_ = 0;
  bool good_ = true;
};

}  // namespace bulkhead::agent
