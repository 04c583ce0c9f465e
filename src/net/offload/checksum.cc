#include "net/offload/checksum.h"

#include <cstring>

namespace bulkhead::net {

// Byte order does not matter to the sum, nor do carries out of 32 bits, as long as none is lost [rfc1071 §2].
u64 checksum_add(std::span<const std::byte> bytes, u64 sum) {
  const std::byte* at = bytes.data();
  std::size_t left = bytes.size();
  u64 lanes[4] = {sum, 0, 0, 0};
  for (; left >= 16; at += 16, left -= 16) {
    u32 words[4];
    std::memcpy(words, at, sizeof words);
    for (unsigned i = 0; i < 4; ++i) lanes[i] += words[i];
  }
  sum = lanes[0] + lanes[1] + lanes[2] + lanes[3];
  for (; left >= 2; at += 2, left -= 2) {
    u16 word;
    std::memcpy(&word, at, sizeof word);
    sum += word;
  }
  if (left != 0) sum += std::to_integer<u8>(*at);
  return sum;
}

u16 checksum_fold(u64 sum) {
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<u16>(sum);
}

bool complete_checksum(FrameHeader& header, std::span<std::byte> frame) {
  if (!(header.flags & kNeedsChecksum)) return true;
  const std::size_t start = header.checksum_start, at = start + header.checksum_offset;
  if (at + 2 > frame.size()) return false;
  // The pseudo header's sum is in the field already. 0 would mean "none" in UDP, and the inverse of ~0 is the same sum.
  u16 value = static_cast<u16>(~checksum_fold(checksum_add(frame.subspan(start))));
  if (value == 0) value = 0xffff;
  std::memcpy(&frame[at], &value, sizeof value);
  header.flags &= static_cast<u8>(~kNeedsChecksum);
  return true;
}

}  // namespace bulkhead::net
