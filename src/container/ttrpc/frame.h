// ttrpc's framing [ttrpc "Protocol"]: 10 bytes of header, then the message. Freestanding: the pod agent uses it, too.
//   u32 length   u32 stream   u8 type   u8 flags      (big endian)
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace bulkhead::ttrpc {

inline constexpr std::size_t kHeaderSize = 10;
inline constexpr std::size_t kMaxMessage = 4u << 20;  // as every implementation has it

enum class FrameType : std::uint8_t { kRequest = 1, kResponse = 2, kData = 3 };

struct Frame {
  std::uint32_t stream = 0;
  std::uint8_t type = 0;  // may be one that we do not know
  std::uint8_t flags = 0;
  bool too_large = false;    // the message was passed over
  std::string_view message;  // valid during the call only
};

inline std::uint32_t big_endian32(const char* at) {
  const auto* const byte = reinterpret_cast<const unsigned char*>(at);
  return std::uint32_t{byte[0]} << 24 | std::uint32_t{byte[1]} << 16 | std::uint32_t{byte[2]} << 8 | byte[3];
}

inline void append_header(std::string& out, std::uint32_t stream, FrameType type, std::size_t length) {
  for (const std::uint32_t word : {static_cast<std::uint32_t>(length), stream})
    for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(word >> shift));
  out.push_back(static_cast<char>(type));
  out.push_back(0);
}

// Collects bytes until a frame is whole. Stores at most one message, and of one that is too large nothing.
class FrameReader {
 public:
  // Calls sink(const Frame&) -> bool for each whole frame, in order. False when the sink said so; then feed no more.
  template <class Sink>
  bool feed(std::string_view bytes, Sink&& sink) {
    while (!bytes.empty() || (have_header() && left_ == 0)) {
      if (!have_header()) {
        take(bytes, kHeaderSize - header_.size(), header_);
        if (!have_header()) return true;
        left_ = big_endian32(header_.data());
        too_large_ = left_ > kMaxMessage;
      }
      const std::size_t size = bytes.size() < left_ ? bytes.size() : left_;
      if (!too_large_) message_.append(bytes.substr(0, size));
      bytes.remove_prefix(size);
      left_ -= size;
      if (left_ > 0) return true;
      const Frame frame{big_endian32(header_.data() + 4), static_cast<std::uint8_t>(header_[8]),
                        static_cast<std::uint8_t>(header_[9]), too_large_, message_};
      const bool good = sink(frame);
      header_.clear();
      message_.clear();
      if (message_.capacity() > kKeptRoom) message_.shrink_to_fit();
      if (!good) return false;
    }
    return true;
  }

 private:
  static constexpr std::size_t kKeptRoom = 256 * 1024;
  bool have_header() const { return header_.size() == kHeaderSize; }
  static void take(std::string_view& from, std::size_t size, std::string& to) {
    if (size > from.size()) size = from.size();
    to.append(from.substr(0, size));
    from.remove_prefix(size);
  }

  std::string header_, message_;
  std::size_t left_ = 0;
  bool too_large_ = false;
};

}  // namespace bulkhead::ttrpc
