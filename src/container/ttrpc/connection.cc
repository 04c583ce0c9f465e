#include "container/ttrpc/connection.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/assert.h"
#include "container/ttrpc/ttrpc.pb.h"

namespace bulkhead::ttrpc {
namespace {

constexpr std::size_t kMaxOutgoing = 64u << 20;  // a peer that reads nothing is no peer
constexpr unsigned kMaxAsked = 4096;

}  // namespace

// ---- Responder

Responder& Responder::operator=(Responder&& other) noexcept {
  std::swap(connection_, other.connection_);
  std::swap(stream_, other.stream_);
  return *this;
}

Responder::~Responder() {
  if (stream_ != 0) refuse(Code::kUnknown, "the call was given up");
}

void Responder::answer(const google::protobuf::MessageLite& message) {
  Answer out;
  out.payload = message.SerializeAsString();
  pass_on(out);
}

void Responder::refuse(Code code, std::string text) { pass_on({code, std::move(text), {}}); }

void Responder::pass_on(const Answer& answer) {
  if (stream_ == 0) return;
  if (const auto connection = connection_.lock()) connection->respond(std::exchange(stream_, 0), answer);
  stream_ = 0;
}

// ---- Connection

std::shared_ptr<Connection> Connection::make(container::Loop& loop, UniqueFd in, UniqueFd out, Handler handler,
                                             Closed closed) {
  std::shared_ptr<Connection> made{
      new Connection{loop, std::move(in), std::move(out), std::move(handler), std::move(closed)}};
  made->start();
  return made;
}

Connection::Connection(container::Loop& loop, UniqueFd in, UniqueFd out, Handler handler, Closed closed)
    : loop_{loop}, in_{std::move(in)}, out_{std::move(out)}, handler_{std::move(handler)}, closed_{std::move(closed)} {}

void Connection::start() {
  for (const UniqueFd* fd : {&in_, &out_})
    if (*fd) ::fcntl(fd->get(), F_SETFL, ::fcntl(fd->get(), F_GETFL) | O_NONBLOCK);
  const auto callback = [weak = weak_from_this()](short events) {
    if (const auto self = weak.lock()) self->ready(events);
  };
  loop_.watch(in_.get(), POLLIN, callback);
  if (out_) loop_.watch(out_.get(), 0, callback);
}

Connection::~Connection() { close(); }

void Connection::close() {
  closed_ = nullptr;
  if (!in_) return;
  loop_.forget(in_.get());
  if (out_) loop_.forget(out_.get());
  in_.reset();
  out_.reset();
  for (auto& [stream, done] : std::exchange(calls_, {})) done({Code::kUnavailable, "the connection ended", {}});
}

void Connection::lost() {
  const auto self = shared_from_this();
  const Closed closed = std::exchange(closed_, nullptr);
  close();
  if (closed) closed();
}

void Connection::ready(short events) {
  const auto self = shared_from_this();
  if ((events & POLLOUT) != 0) write();
  if (in_ && (events & (POLLIN | POLLHUP | POLLERR)) != 0) read();
}

void Connection::read() {
  char piece[32 * 1024];
  const ssize_t size = ::read(in_.get(), piece, sizeof piece);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (size <= 0) return lost();
  const bool good =
      reader_.feed({piece, static_cast<std::size_t>(size)}, [this](const Frame& frame) { return take(frame) && in_; });
  if (!good && in_) lost();
}

void Connection::update() {
  const short wanted = outgoing_.empty() ? 0 : POLLOUT;
  if (out_)
    loop_.change(out_.get(), wanted);
  else if (in_)
    loop_.change(in_.get(), static_cast<short>(POLLIN | wanted));
}

void Connection::write() {
  const ssize_t size = ::write(out_fd(), outgoing_.data(), outgoing_.size());
  if (size > 0) outgoing_.erase(0, static_cast<std::size_t>(size));
  if (size < 0 && errno != EAGAIN && errno != EINTR) return lost();
  update();
}

void Connection::send(FrameType type, u32 stream, const std::string& message) {
  if (!in_) return;
  const bool idle = outgoing_.empty();
  append_header(outgoing_, stream, type, message.size());
  outgoing_ += message;
  if (outgoing_.size() > kMaxOutgoing) {
    loop_.soon([weak = weak_from_this()] {
      if (const auto self = weak.lock(); self && self->open()) self->lost();
    });
    return;
  }
  if (!idle) return;
  const ssize_t size = ::write(out_fd(), outgoing_.data(), outgoing_.size());
  if (size > 0) outgoing_.erase(0, static_cast<std::size_t>(size));
  update();  // an error is found again when the loop looks
}

void Connection::call(const std::string& service, const std::string& method,
                      const google::protobuf::MessageLite& message, Done done) {
  if (!in_) return done({Code::kUnavailable, "the connection ended", {}});
  wire::Request request;
  request.set_service(service);
  request.set_method(method);
  message.SerializeToString(request.mutable_payload());
  const std::string bytes = request.SerializeAsString();
  if (bytes.size() > kMaxMessage) return done({Code::kResourceExhausted, "a message of more than 4 MiB", {}});
  const u32 stream = next_stream_;
  next_stream_ += 2;
  calls_[stream] = std::move(done);
  send(FrameType::kRequest, stream, bytes);
}

bool Connection::take(const Frame& frame) {
  if (frame.type == static_cast<u8>(FrameType::kRequest)) return take_request(frame);
  if (frame.type == static_cast<u8>(FrameType::kResponse)) return take_response(frame);
  return true;  // what later versions of the protocol may bring
}

bool Connection::take_request(const Frame& frame) {
  // A caller's streams are odd, and each is used once.
  if (frame.stream % 2 == 0 || (last_seen_ != 0 && frame.stream <= last_seen_)) return false;
  last_seen_ = frame.stream;
  ++asked_;
  if (asked_ > kMaxAsked) return false;
  if (frame.too_large) {
    respond(frame.stream, {Code::kResourceExhausted, "a message of more than 4 MiB", {}});
    return true;
  }
  wire::Request request;
  if (!request.ParseFromArray(frame.message.data(), static_cast<int>(frame.message.size()))) {
    respond(frame.stream, {Code::kInvalidArgument, "a malformed request", {}});
    return true;
  }
  if (!handler_) {
    respond(frame.stream, {Code::kUnimplemented, "nothing can be called here", {}});
    return true;
  }
  handler_({request.service(), request.method(), request.payload()}, Responder{weak_from_this(), frame.stream});
  return true;
}

bool Connection::take_response(const Frame& frame) {
  const auto found = calls_.find(frame.stream);
  if (found == calls_.end()) return false;  // nobody asked
  const Done done = std::move(found->second);
  calls_.erase(found);
  wire::Response response;
  if (frame.too_large || !response.ParseFromArray(frame.message.data(), static_cast<int>(frame.message.size()))) {
    done({Code::kUnknown, "a malformed response", {}});
    return true;
  }
  done({static_cast<Code>(response.status().code()), response.status().message(), response.payload()});
  return true;
}

void Connection::respond(u32 stream, const Answer& answer) {
  if (asked_ > 0) --asked_;
  wire::Response response;
  response.mutable_status()->set_code(static_cast<int>(answer.code));
  if (!answer.good()) response.mutable_status()->set_message(answer.text);
  response.set_payload(answer.payload);
  std::string bytes = response.SerializeAsString();
  if (bytes.size() > kMaxMessage)
    return respond(stream, {Code::kResourceExhausted, "the answer has more than 4 MiB", {}});
  send(FrameType::kResponse, stream, bytes);
}

Result<UniqueFd> connect_to(const std::string& address) {
  const std::string path = address.starts_with("unix://") ? address.substr(7) : address;
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof name.sun_path) return fail("the socket path {} is too long", path);
  path.copy(name.sun_path, path.size());
  UniqueFd fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0)
    return fail_errno("connecting to {}", path);
  return fd;
}

}  // namespace bulkhead::ttrpc
