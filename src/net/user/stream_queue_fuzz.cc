// Any bytes as what passt, or another zone's monitor, says on the stream, in pieces.
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "base/assert.h"
#include "net/user/stream_queue.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace bulkhead;
  using namespace bulkhead::net;
  int ends[2];
  BH_ASSERT(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
  StreamQueue queue{UniqueFd{ends[0]}};
  UniqueFd other{ends[1]};
  u64 came = 0;
  bool gone = false;
  while (size != 0 && !gone) {
    const std::size_t piece = std::min<std::size_t>(size, 1 + u64{data[0]} * data[0] / 8);
    BH_ASSERT(::write(other.get(), data, piece) == static_cast<ssize_t>(piece));
    data += piece;
    size -= piece;
    for (;;) {
      FrameHeader header;
      std::span<std::byte> frame;
      const Received received = queue.receive(header, frame);
      gone = received == Received::kGone;
      if (received != Received::kFrame) break;
      BH_ASSERT(frame.size() <= kMaxFrame);
      came += frame.size();
      std::ranges::fill(frame, std::byte{1});  // it is the taker's to change
    }
  }
  return came == ~u64{0};
}
