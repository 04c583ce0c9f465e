#include "zone/session/agent_session.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "base/assert.h"
#include "guest/agent/start_request.h"

namespace bulkhead::zone {
namespace {

using agent::FrameType;
using agent::kMaxPayload;
using agent::kWindow;
using agent::Stream;

constexpr std::size_t kMaxQueued = 4_MiB;  // beyond it the agent does not read: signals and resizes are dropped

template <class T>
std::span<const std::byte> bytes_of_value(const T& value) {
  return std::as_bytes(std::span{&value, 1});
}

void append_string(std::string& out, std::string_view text) {
  const auto length = static_cast<u32>(text.size());
  out.append(reinterpret_cast<const char*>(&length), sizeof length);
  out.append(text);
  out.push_back('\0');
}

}  // namespace

std::string printable(std::string_view text, std::size_t limit) {
  std::string out{text.substr(0, limit)};
  std::ranges::replace_if(out, [](unsigned char c) { return (c < ' ' && c != '\t') || c == 127; }, '?');
  return out;
}

std::string encode_start_request(const StartRequest& request) {
  if (request.arguments.empty() || request.arguments.size() > agent::kMaxArguments ||
      request.environment.size() > agent::kMaxEnvironment || request.networks.size() > agent::kMaxNetworks ||
      request.volumes.size() > agent::kMaxVolumes)
    return {};
  const agent::StartHeader header{request.terminal ? agent::kFlagTerminal : 0,
                                  request.columns,
                                  request.rows,
                                  static_cast<u32>(request.arguments.size()),
                                  static_cast<u32>(request.environment.size()),
                                  static_cast<u32>(request.networks.size()),
                                  static_cast<u32>(request.volumes.size())};
  std::string out(reinterpret_cast<const char*>(&header), sizeof header);
  bool sane = true;
  const auto add = [&](const std::string& text) {
    sane &= text.find('\0') == std::string::npos && text.size() <= agent::kMaxStartRequest;
    if (sane && out.size() <= agent::kMaxStartRequest) append_string(out, text);
  };
  add(request.hostname);
  add(request.directory);
  add(request.user);
  for (const std::string& argument : request.arguments) add(argument);
  for (const std::string& variable : request.environment) add(variable);
  for (const std::string& network : request.networks) add(network);
  for (const std::string& volume : request.volumes) add(volume);
  return sane && out.size() <= agent::kMaxStartRequest ? out : std::string{};
}

int Ending::exit_status() const {
  switch (kind) {
    case Kind::kCode:
      return static_cast<int>(code);
    case Kind::kSignal:
      return static_cast<int>(128 + code);
    case Kind::kCommandFailed:
      return code == ENOENT || code == ENOTDIR ? 127 : 126;
    case Kind::kZoneFailed:
      break;
  }
  return 125;
}

bool AgentSession::fail_protocol(std::string why) {
  if (broken_.empty()) broken_ = std::move(why);
  return false;
}

bool AgentSession::receive(std::span<const std::byte> bytes) {
  if (!broken_.empty()) return false;
  if (decoder_.feed(bytes, [this](const agent::Frame& frame) { return handle(frame); })) return true;
  return fail_protocol("a malformed frame");
}

std::size_t AgentSession::take(std::span<std::byte> out) {
  const std::size_t size = std::min(out.size(), outgoing_.size() - outgoing_start_);
  std::copy_n(reinterpret_cast<const std::byte*>(outgoing_.data()) + outgoing_start_, size, out.begin());
  outgoing_start_ += size;
  if (outgoing_start_ == outgoing_.size()) {
    outgoing_.clear();
    outgoing_start_ = 0;
  } else if (outgoing_start_ >= kWindow) {
    outgoing_.erase(0, outgoing_start_);
    outgoing_start_ = 0;
  }
  return size;
}

void AgentSession::send(FrameType type, Stream stream, std::span<const std::byte> payload) {
  std::byte header[agent::kHeaderSize];
  agent::encode_header(header, type, static_cast<u8>(stream), static_cast<u32>(payload.size()));
  outgoing_.append(reinterpret_cast<const char*>(header), sizeof header);
  outgoing_.append(reinterpret_cast<const char*>(payload.data()), payload.size());
}

void AgentSession::start(const std::string& encoded) {
  BH_ASSERT(hello_ && !start_sent_ && !encoded.empty());
  start_sent_ = true;
  for (auto rest = std::as_bytes(std::span{encoded}); !rest.empty();) {
    const auto part = rest.first(std::min<std::size_t>(rest.size(), kMaxPayload));
    send(FrameType::kConfigure, Stream::kInput, part);
    rest = rest.subspan(part.size());
  }
  send(FrameType::kStart, Stream::kInput, {});
}

void AgentSession::send_signal(int number) {
  if (started_ && !ending_ && outgoing_.size() < kMaxQueued)
    send(FrameType::kSignal, Stream::kInput, bytes_of_value(static_cast<u32>(number)));
}

void AgentSession::send_window_size(u16 columns, u16 rows) {
  const u16 size[2] = {columns, rows};
  if (started_ && !ending_ && outgoing_.size() < kMaxQueued)
    send(FrameType::kWindowSize, Stream::kInput, std::as_bytes(std::span{size}));
}

void AgentSession::push_input(std::span<const std::byte> bytes) {
  BH_ASSERT(bytes.size() <= input_room());
  input_credit_ -= static_cast<u32>(bytes.size());
  for (; !bytes.empty(); bytes = bytes.subspan(std::min<std::size_t>(bytes.size(), kMaxPayload)))
    send(FrameType::kData, Stream::kInput, bytes.first(std::min<std::size_t>(bytes.size(), kMaxPayload)));
}

void AgentSession::end_input() {
  if (input_ended_) return;
  input_ended_ = true;
  if (!input_abandoned_) send(FrameType::kEndOfStream, Stream::kInput, {});
}

std::string_view AgentSession::pending(Stream stream) const {
  const Incoming& in = incoming(stream);
  return std::string_view{in.buffer}.substr(in.start);
}

void AgentSession::consume(Stream stream, std::size_t bytes) {
  Incoming& in = incoming(stream);
  BH_ASSERT(bytes <= in.buffer.size() - in.start);
  in.start += bytes;
  if (in.start == in.buffer.size()) {
    in.buffer.clear();
    in.start = 0;
  }
  in.owed += static_cast<u32>(bytes);
  if (in.owed < kWindow / 4 || in.ended || in.abandoned) return;
  // Half-eaten buffers are closed up here, where it happens once in many bytes.
  in.buffer.erase(0, in.start);
  in.start = 0;
  in.credit += in.owed;
  send(FrameType::kCredit, stream, bytes_of_value(in.owed));
  in.owed = 0;
}

void AgentSession::abandon(Stream stream) {
  Incoming& in = incoming(stream);
  if (in.abandoned) return;
  in.abandoned = true;
  in.buffer.clear();
  in.start = 0;
  if (!in.ended) send(FrameType::kAbandon, stream, {});
}

bool AgentSession::handle(const agent::Frame& frame) {
  if (!hello_ && frame.type != FrameType::kHello) return fail_protocol("it did not introduce itself");
  if (ending_) return fail_protocol("a frame after the last one");
  switch (frame.type) {
    case FrameType::kHello:
      return handle_hello(frame);
    case FrameType::kStarted:
      if (!start_sent_ || started_) return fail_protocol("a command started that nobody asked for");
      return started_ = true;
    case FrameType::kData:
      return handle_data(frame);
    case FrameType::kEndOfStream:
      if (!started_ || frame.stream == 0 || ended(static_cast<Stream>(frame.stream)))
        return fail_protocol("an end of a stream that is not open");
      return incoming(static_cast<Stream>(frame.stream)).ended = true;
    case FrameType::kCredit:
      return handle_credit(frame);
    case FrameType::kAbandon:
      if (frame.stream != 0) return fail_protocol("it gave up a stream that is its own");
      return input_abandoned_ = true;
    case FrameType::kExited:
      return handle_exited(frame);
    case FrameType::kFailed:
      return handle_failed(frame);
    default:
      return fail_protocol("a frame that only we may send");
  }
}

bool AgentSession::handle_hello(const agent::Frame& frame) {
  if (hello_) return fail_protocol("it introduced itself twice");
  if (frame.word(0) != agent::kMagic || frame.word(1) != agent::kProtocolVersion)
    return fail_protocol("it speaks another version of the protocol");
  return hello_ = true;
}

bool AgentSession::handle_data(const agent::Frame& frame) {
  if (!started_ || frame.stream == 0) return fail_protocol("data on a stream that is not open");
  Incoming& in = incoming(static_cast<Stream>(frame.stream));
  if (in.ended) return fail_protocol("data after the end of a stream");
  if (frame.payload.size() > in.credit) return fail_protocol("more data than it had credit for");
  in.credit -= static_cast<u32>(frame.payload.size());
  if (!in.abandoned) in.buffer.append(reinterpret_cast<const char*>(frame.payload.data()), frame.payload.size());
  return true;
}

bool AgentSession::handle_credit(const agent::Frame& frame) {
  const u32 credit = frame.word(0);
  if (frame.stream != 0 || credit == 0 || credit > kWindow - input_credit_)
    return fail_protocol("credit for more than was sent");
  input_credit_ += credit;
  return true;
}

bool AgentSession::handle_exited(const agent::Frame& frame) {
  const u32 kind = frame.word(0), code = frame.word(1);
  const bool by_signal = kind == static_cast<u32>(agent::ExitKind::kSignal);
  if (!started_ || !ended(Stream::kOutput) || !ended(Stream::kError)) return fail_protocol("an exit before its time");
  if (kind > 1 || (by_signal ? code < 1 || code > 64 : code > 255)) return fail_protocol("an impossible exit status");
  ending_ = Ending{by_signal ? Ending::Kind::kSignal : Ending::Kind::kCode, code, {}};
  return true;
}

bool AgentSession::handle_failed(const agent::Frame& frame) {
  const u32 stage = frame.word(0);
  const bool command = stage == static_cast<u32>(agent::FailStage::kCommand);
  if (started_ || stage > 1 || (command && !start_sent_)) return fail_protocol("a failure that cannot be");
  const auto text = frame.payload.subspan(8);
  ending_ = Ending{command ? Ending::Kind::kCommandFailed : Ending::Kind::kZoneFailed, frame.word(1),
                   printable({reinterpret_cast<const char*>(text.data()), text.size()}, agent::kMaxText)};
  return true;
}

}  // namespace bulkhead::zone
