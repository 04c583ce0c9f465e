// One end of a ttrpc connection on a loop. Never blocks. What the other side sends is bounded: one message, and so many
// calls at a time.
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/result.h"
#include "container/event/loop.h"
#include "container/ttrpc/frame.h"

namespace google::protobuf {
class MessageLite;
}

namespace bulkhead::ttrpc {

// How a call ends: gRPC's codes [grpc "Status codes"].
enum class Code : int {
  kOk = 0,
  kUnknown = 2,
  kInvalidArgument = 3,
  kNotFound = 5,
  kAlreadyExists = 6,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kUnimplemented = 12,
  kUnavailable = 14,
};
struct Answer {
  Code code = Code::kOk;
  std::string text;     // when it failed
  std::string payload;  // otherwise
  bool good() const { return code == Code::kOk; }
};

class Connection;

// The right to answer one call, once. Whoever lets go of it without answering has answered that something went wrong.
class Responder {
 public:
  Responder(std::weak_ptr<Connection> connection, u32 stream) : connection_{std::move(connection)}, stream_{stream} {}
  Responder(Responder&& other) noexcept
      : connection_{std::move(other.connection_)}, stream_{std::exchange(other.stream_, 0)} {}
  Responder& operator=(Responder&& other) noexcept;
  ~Responder();
  void answer(const google::protobuf::MessageLite& message);
  void refuse(Code code, std::string text);
  void pass_on(const Answer& answer);

 private:
  std::weak_ptr<Connection> connection_;
  u32 stream_;  // 0: answered
};

struct Call {
  std::string service, method, payload;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Handler = std::function<void(const Call&, Responder)>;
  using Done = std::function<void(const Answer&)>;
  using Closed = std::function<void()>;

  // Takes two descriptors, which may be the same file (then `out` is -1). Without a handler calls are refused.
  // `closed` is called once, when the other side has gone or broke the protocol; not after close().
  static std::shared_ptr<Connection> make(container::Loop& loop, UniqueFd in, UniqueFd out, Handler handler,
                                          Closed closed);
  ~Connection();

  // `done` is called once, also when the connection ends before there is an answer.
  void call(const std::string& service, const std::string& method, const google::protobuf::MessageLite& message,
            Done done);
  void close();
  bool open() const { return static_cast<bool>(in_); }

 private:
  friend class Responder;
  Connection(container::Loop& loop, UniqueFd in, UniqueFd out, Handler handler, Closed closed);
  void start();
  int out_fd() const { return out_ ? out_.get() : in_.get(); }
  void ready(short events);
  void read();
  void write();
  void update();
  bool take(const Frame& frame);
  bool take_request(const Frame& frame);
  bool take_response(const Frame& frame);
  void send(FrameType type, u32 stream, const std::string& message);
  void respond(u32 stream, const Answer& answer);
  void lost();

  container::Loop& loop_;
  UniqueFd in_, out_;
  Handler handler_;
  Closed closed_;
  FrameReader reader_;
  std::string outgoing_;
  std::map<u32, Done> calls_;
  u32 next_stream_ = 1;
  u32 last_seen_ = 0;   // the highest stream of theirs
  unsigned asked_ = 0;  // calls of theirs that are not answered
};

// Connects to a socket by its path or "unix://PATH". Errors: nobody listens there.
Result<UniqueFd> connect_to(const std::string& address);

}  // namespace bulkhead::ttrpc
