// Any bytes as a guest's header and frame: what is plausible is cut up and summed within bounds.
#include <cstring>
#include <vector>

#include "base/assert.h"
#include "net/offload/checksum.h"
#include "net/offload/segments.h"
#include "net/offload/transport.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace bulkhead;
  using namespace bulkhead::net;
  FrameHeader header;
  if (size < sizeof header) return 0;
  std::memcpy(static_cast<void*>(&header), data, sizeof header);
  const auto bytes = std::as_bytes(std::span{data, size}).subspan(sizeof header);
  std::vector<std::byte> frame{bytes.begin(), bytes.end()};
  // It may lie behind what is there of the frame: those who look further ask.
  if (const auto found = find_transport(frame)) BH_ASSERT(found->network + 20 <= found->transport);
  if (!plausible(header, frame.size())) return 0;
  Segments segments;
  if (header.gso != kGsoNone && segments.begin(header, frame)) {
    u64 payload = 0;
    for (unsigned count = 1; segments.any(); ++count) {
      const auto one = segments.next();
      BH_ASSERT(one.size() >= kEthernetBytes && one.size() <= kMaxFrame && count <= kMaxFrame);
      BH_ASSERT((payload += one.size()) <= u64{2048} * kMaxFrame);  // headers of a few hundred bytes each at most
    }
  }
  if (header.flags & kNeedsChecksum) BH_ASSERT(complete_checksum(header, frame) && !(header.flags & kNeedsChecksum));
  return 0;
}
