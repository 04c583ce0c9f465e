#include <memory>

#include "base/assert.h"
#include "zone/session/agent_session.h"

// The zone says anything at all, in pieces; we answer as the loop would. Memory must stay bounded.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bulkhead;
  using Stream = agent::Stream;
  auto session = std::make_unique<zone::AgentSession>();
  const std::string request = zone::encode_start_request({.arguments = {"true"}});
  bool asked = false;
  auto rest = std::as_bytes(std::span{data, size});
  while (!rest.empty()) {
    const std::size_t piece = std::min<std::size_t>(rest.size(), 1 + static_cast<u8>(rest[0]) % 97);
    const bool good = session->receive(rest.first(piece));
    rest = rest.subspan(piece);
    if (session->agent_is_up() && !asked) session->start(request), asked = true;
    for (const Stream stream : {Stream::kOutput, Stream::kError}) {
      BH_ASSERT(session->pending(stream).size() <= agent::kWindow);
      session->consume(stream, session->pending(stream).size() / 2);
    }
    if (session->input_room() > 0) session->push_input(rest.first(std::min(rest.size(), session->input_room())));
    std::byte sink[4096];
    session->take(sink);
    if (!good) BH_ASSERT(!session->broken().empty());
  }
  return 0;
}
