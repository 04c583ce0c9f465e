#include "zone/live/client.h"

#include <poll.h>
#include <sys/socket.h>

#include "zone/live/socket_place.h"

namespace bulkhead::zone {

Result<ZoneClient> ZoneClient::connect(const std::string& folder, const std::string& name) {
  BH_ASSIGN(UniqueFd fd, connect_to_zone(folder, name));
  return ZoneClient{std::move(fd), name};
}

Result<std::string> ZoneClient::ask(const Request& request, Nanoseconds patience) {
  const std::string text = encode_request(request);
  if (text.size() > kMaxRequestLine) return fail("what is asked of the zone '{}' is too long", name_);
  // A socket that was just opened takes a request whole.
  if (::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size()) && errno != EPIPE)
    return fail_errno("asking the zone '{}'", name_);
  BH_ASSIGN(const std::string line, read_line(HostClock{}.now() + patience));
  auto answer = parse_answer(line);
  if (!answer) return fail("zone '{}': {}", name_, answer.error().message);
  return answer;
}

Result<std::string> ZoneClient::read_line(Nanoseconds deadline) {
  std::string text;
  while (!text.ends_with('\n')) {
    const Nanoseconds now = HostClock{}.now();
    if (now >= deadline) return fail("the zone '{}' does not answer", name_);
    pollfd entry{fd_.get(), POLLIN, 0};
    if (::poll(&entry, 1, static_cast<int>(std::min<Nanoseconds>((deadline - now) / 1'000'000 + 1, 1000))) <= 0)
      continue;
    char buffer[16_KiB];
    const ssize_t size = ::recv(fd_.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    if (size == 0 || (size < 0 && errno == ECONNRESET)) return fail("the zone '{}' ended without an answer", name_);
    if (size > 0) text.append(buffer, static_cast<std::size_t>(size));
    if (text.size() > kLongestAnswer) return fail("the zone '{}' does not stop answering", name_);
  }
  text.pop_back();
  return text;
}

}  // namespace bulkhead::zone
