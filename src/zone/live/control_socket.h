// The server's end of a zone's control socket. Its own thread does all the waiting: a client that is slow, silent or
// talks nonsense costs the zone nothing but one of kMaxClients places, and that no longer than `patience`.
// Each client has one request in work at a time; what it sends meanwhile waits in its socket.
#pragma once
#include <functional>
#include <memory>
#include <thread>

#include "base/clock.h"
#include "base/result.h"
#include "base/sync.h"
#include "zone/live/request.h"
#include "zone/live/socket_place.h"

namespace bulkhead::zone {

// The way back to whoever asked. Any thread; only the first answer counts, and one that is never given is an error.
class Answer {
 public:
  Answer() = default;
  Answer(const Answer&) = delete;
  Answer& operator=(const Answer&) = delete;
  virtual ~Answer() = default;
  void give(std::string_view json) { send(answer_line(json)); }
  void refuse(std::string_view message) { send(error_line(message)); }

 private:
  virtual void send(std::string line) = 0;
};
using AnswerPtr = std::shared_ptr<Answer>;

class ControlSocket {
 public:
  static constexpr std::size_t kMaxClients = 8;
  static constexpr Nanoseconds kPatience = 30'000'000'000;  // with a client that neither asks nor reads
  // Called on our thread; must not block. May answer at once, or later from elsewhere.
  using Handler = std::function<void(const Request&, const AnswerPtr&)>;

  ControlSocket(SocketPlace place, Handler handler, Nanoseconds patience = kPatience);
  // Frees the name, then passes on the answers that were given, as far as clients take them at once. Requests that
  // nobody has answered are answered with an error.
  ~ControlSocket();
  ControlSocket(const ControlSocket&) = delete;
  ControlSocket& operator=(const ControlSocket&) = delete;

  const std::string& name() const { return name_; }
  // Before the last answers: whoever gets one may give the name to the next zone at once.
  void free_name();

 private:
  class Loop;
  const std::string name_;
  std::shared_ptr<Loop> loop_;  // answers may outlive us
  std::thread thread_;
};

}  // namespace bulkhead::zone
