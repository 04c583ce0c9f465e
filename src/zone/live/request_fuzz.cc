#include <span>

#include "base/assert.h"
#include "zone/live/line_reader.h"
#include "zone/live/request.h"

// A client sends anything at all, in pieces. Memory is bounded, errors are one line, and what was understood means the
// same when it is said again.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bulkhead;
  zone::LineReader reader{zone::kMaxRequestLine};
  std::string_view rest{reinterpret_cast<const char*>(data), size};
  while (!rest.empty()) {
    const std::size_t piece =
        std::min({rest.size(), 1 + static_cast<std::size_t>(static_cast<u8>(rest[0])) * 7, reader.room()});
    if (piece == 0) break;
    reader.feed(rest.substr(0, piece));
    rest.remove_prefix(piece);
    while (const auto line = reader.next()) {
      const auto request = zone::parse_request(*line);
      if (!request) {
        BH_ASSERT(!request.error().message.empty() && !request.error().message.contains('\n'));
        BH_ASSERT(zone::error_line(request.error().message).size() < 4096);
        continue;
      }
      std::string again = zone::encode_request(*request);
      again.pop_back();
      if (again.size() <= zone::kMaxRequestLine) BH_ASSERT(zone::parse_request(again).has_value());
    }
    (void)zone::parse_answer(rest.substr(0, 200));
  }
  return 0;
}
