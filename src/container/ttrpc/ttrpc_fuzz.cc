// Whatever bytes come, in whatever pieces, a connection ends each of its own calls once, answers each call of the other
// side at most once, and keeps to its limits.
#include <sys/socket.h>
#include <unistd.h>

#include "container/ttrpc/connection.h"
#include "container/ttrpc/ttrpc.pb.h"

namespace {

using namespace bulkhead;
using namespace bulkhead::ttrpc;

// Frames are the same however the bytes are cut.
void frames(std::string_view bytes, std::size_t piece) {
  std::string whole, cut;
  const auto into = [](std::string& out) {
    return [&out](const Frame& frame) {
      if (frame.message.size() > kMaxMessage || (frame.too_large && !frame.message.empty())) __builtin_trap();
      out += std::to_string(frame.stream) + "/" + std::to_string(frame.type) + (frame.too_large ? "!" : ":");
      out += frame.message;
      return true;
    };
  };
  FrameReader one, other;
  one.feed(bytes, into(whole));
  for (std::string_view rest = bytes; !rest.empty(); rest.remove_prefix(std::min(piece, rest.size())))
    other.feed(rest.substr(0, piece), into(cut));
  if (whole != cut) __builtin_trap();
}

void connection(std::string_view bytes, bool answers) {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0) return;
  UniqueFd ours{fds[0]}, theirs{fds[1]};
  container::Loop loop;
  std::vector<Responder> kept;
  unsigned asked = 0, ended = 0;
  const auto handler = [&](const Call& call, Responder answer) {
    if (!answers) return kept.push_back(std::move(answer));
    wire::Request echo;
    echo.set_method(call.method);
    answer.answer(echo);
    answer.refuse(Code::kUnknown, "twice");  // has no effect
  };
  const auto under_test = Connection::make(loop, std::move(ours), {}, handler, [&] { loop.stop(); });
  const auto done = [&](const Answer&) { ++ended; };
  for (; asked < 3; ++asked) under_test->call("service", "method", wire::Request{}, done);
  if (::send(theirs.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0) return;
  ::shutdown(theirs.get(), SHUT_WR);
  loop.run();  // to the end of the bytes, or what is wrong with them
  if (under_test->open() || ended != asked) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0 || size > 64 * 1024) return 0;
  const std::string_view bytes{reinterpret_cast<const char*>(data) + 1, size - 1};
  frames(bytes, 1 + data[0] / 2);
  connection(bytes, data[0] % 2 == 0);
  return 0;
}
