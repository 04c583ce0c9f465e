// The Internet checksum [rfc1071]: the ones' complement sum of 16-bit words.
#pragma once
#include <span>

#include "net/frame.h"

namespace bulkhead::net {

// The sum so far, not folded: sums of pieces add up where all but the last have an even length.
u64 checksum_add(std::span<const std::byte> bytes, u64 sum = 0);
u16 checksum_fold(u64 sum);  // not inverted; in the byte order of memory

// Does what kNeedsChecksum asks for and clears it. False: the places are not within the frame.
bool complete_checksum(FrameHeader& header, std::span<std::byte> frame);

}  // namespace bulkhead::net
