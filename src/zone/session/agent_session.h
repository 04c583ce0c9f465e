// The monitor's side of the protocol with the agent (guest/agent/protocol.h), as a state machine on bytes. It has no
// descriptors and no threads; AgentPort guards it. Whatever the zone sends, its memory is bounded: kWindow bytes a
// stream, one frame, and what we ourselves queue.
#pragma once
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "base/ints.h"
#include "guest/agent/frames.h"

namespace bulkhead::zone {

struct StartRequest {
  bool terminal = false;
  u16 columns = 80, rows = 25;
  std::string hostname = {}, directory = "/", user = {};      // user: see guest/agent/start_request.h
  std::vector<std::string> arguments = {}, environment = {};  // environment: "NAME=value"
  std::vector<std::string> networks = {};                     // see guest/agent/start_request.h
  std::vector<std::string> volumes = {};                      // see guest/agent/volumes.h
};
// The request as the agent reads it; empty when it is beyond the protocol's bounds (too long, a NUL inside).
std::string encode_start_request(const StartRequest& request);

// How the command ended, or why it did not run.
struct Ending {
  enum class Kind : u8 { kCode, kSignal, kZoneFailed, kCommandFailed };
  Kind kind = Kind::kCode;
  u32 code = 0;             // exit code, signal number or errno
  std::string text;         // kZoneFailed, kCommandFailed: printable
  int exit_status() const;  // what our own exit status shall be: code, 128+n, 125, 126 or 127
};

class AgentSession {
 public:
  using Stream = agent::Stream;

  // Bytes from the zone. False: they broke the protocol, broken() says how, and nothing more is taken.
  bool receive(std::span<const std::byte> bytes);
  // Bytes for the zone: fills `out` as far as there are any.
  std::size_t take(std::span<std::byte> out);
  bool has_output() const { return outgoing_start_ < outgoing_.size(); }

  bool agent_is_up() const { return hello_; }
  bool command_started() const { return started_; }
  const std::optional<Ending>& ending() const { return ending_; }
  const std::string& broken() const { return broken_; }  // empty: not broken

  void start(const std::string& encoded_request);  // once, after agent_is_up()
  void send_signal(int number);
  void send_window_size(u16 columns, u16 rows);

  // Input for the command: at most input_room() bytes at a time. No room ever again once input_abandoned().
  std::size_t input_room() const { return input_ended_ || input_abandoned_ ? 0 : input_credit_; }
  bool input_abandoned() const { return input_abandoned_; }
  void push_input(std::span<const std::byte> bytes);
  void end_input();

  // Output of the command (kOutput, kError): what has arrived, and what of it has been passed on.
  std::string_view pending(Stream stream) const;
  void consume(Stream stream, std::size_t bytes);
  bool ended(Stream stream) const { return incoming(stream).ended; }
  void abandon(Stream stream);  // nobody will read it: what comes is dropped, the command gets SIGPIPE

 private:
  struct Incoming {
    std::string buffer;
    std::size_t start = 0;
    u32 credit = agent::kWindow;  // what the agent may still send
    u32 owed = 0;                 // passed on but not yet credited
    bool ended = false, abandoned = false;
  };
  Incoming& incoming(Stream stream) { return incoming_[static_cast<unsigned>(stream) - 1]; }
  const Incoming& incoming(Stream stream) const { return incoming_[static_cast<unsigned>(stream) - 1]; }
  void send(agent::FrameType type, Stream stream, std::span<const std::byte> payload);
  bool fail_protocol(std::string why);
  bool handle(const agent::Frame& frame);
  bool handle_hello(const agent::Frame& frame);
  bool handle_data(const agent::Frame& frame);
  bool handle_credit(const agent::Frame& frame);
  bool handle_exited(const agent::Frame& frame);
  bool handle_failed(const agent::Frame& frame);

  agent::FrameDecoder decoder_;
  std::string outgoing_;
  std::size_t outgoing_start_ = 0;
  std::array<Incoming, 2> incoming_;
  u32 input_credit_ = agent::kWindow;
  bool input_ended_ = false, input_abandoned_ = false;
  bool hello_ = false, start_sent_ = false, started_ = false;
  std::optional<Ending> ending_;
  std::string broken_;
};

// Text from a zone made fit for a terminal: control characters become '?', at most `limit` bytes.
std::string printable(std::string_view text, std::size_t limit);

}  // namespace bulkhead::zone
