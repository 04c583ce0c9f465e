// One poll loop: frames in, frames out, the command's streams, the end of processes.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <new>

#include "guest/agent/agent.h"
#include "guest/agent/frames.h"

namespace bulkhead::agent {
namespace {

constexpr std::uint32_t kFrameRoom = kHeaderSize + kMaxPayload;
constexpr std::uint32_t kControlRoom = 4096;                               // kept free for frames that are not data
constexpr std::uint32_t kOutgoingReserve = 2 * kFrameRoom + kControlRoom;  // both outputs may be read in one turn
constexpr int kStuckMs = 2000;          // after the command's end: how long a silent stream may stay open
constexpr int kFarewellMs = 5000;       // after kExited: how long the monitor may take to switch us off
constexpr char kEndOfTransmission = 4;  // what a terminal's reader sees as the end of input

// Bytes on their way to one descriptor.
template <std::uint32_t kSize>
struct Queue {
  std::byte bytes[kSize];
  std::uint32_t start = 0, end = 0;
  std::uint32_t used() const { return end - start; }
  std::uint32_t room() const { return kSize - used(); }
  void push(const void* data, std::uint32_t size) {
    if (kSize - end < size) {
      memmove(bytes, bytes + start, used());
      end -= start;
      start = 0;
    }
    memcpy(bytes + end, data, size);
    end += size;
  }
  // What `write` took; -1 with errno as from write().
  template <class Write>
  ssize_t drain(Write write) {
    const ssize_t written = write(bytes + start, used());
    if (written > 0) start += static_cast<std::uint32_t>(written);
    if (start == end) start = end = 0;
    return written;
  }
};

struct Output {
  int fd = -1;
  std::uint32_t credit = kWindow;
  bool ended = false;      // kEndOfStream was sent
  bool abandoned = false;  // the monitor does not want it any more
  bool hung_up = false;    // a terminal that nobody has open at the moment
};

class Session {
 public:
  explicit Session(Port& port) : port_{port} {}
  void say_hello() {
    const std::uint32_t hello[2] = {kMagic, kProtocolVersion};
    send(FrameType::kHello, 0, hello, sizeof hello);
  }
  void send_failure(FailStage stage, const Failure& failure);
  void run();

 private:
  void send(FrameType type, Stream stream, const void* payload, std::uint32_t size) {
    send(type, static_cast<std::uint8_t>(stream), payload, size);
  }
  void send(FrameType type, std::uint8_t stream, const void* payload, std::uint32_t size) {
    std::byte header[kHeaderSize];
    encode_header(header, type, stream, size);
    if (outgoing_.room() < kHeaderSize + size) power_off();  // cannot be: kControlRoom is kept
    outgoing_.push(header, sizeof header);
    if (size > 0) outgoing_.push(payload, size);
  }
  Output& output(unsigned stream) { return outputs_[stream - 1]; }

  bool handle(const Frame& frame);
  bool handle_start();
  bool take_input(const Frame& frame);
  void read_port();
  void write_port() {
    outgoing_.drain([this](const void* data, size_t size) { return port_.write(data, size); });
  }
  short port_events() const { return static_cast<short>(POLLIN | (outgoing_.used() > 0 ? POLLOUT : 0)); }
  void pass_input_on();
  void close_input();
  void read_output(unsigned stream);
  void end_output(unsigned stream);
  void reap();
  void wait_for_events();
  bool all_said() const { return command_ended_ && outputs_[0].ended && outputs_[1].ended; }

  Port& port_;
  int children_ = -1;  // signalfd for SIGCHLD
  FrameDecoder decoder_;
  Queue<4 * kFrameRoom> outgoing_;
  Queue<kWindow> input_;
  std::uint32_t input_to_credit_ = 0;
  bool input_ended_ = false;
  char request_[kMaxStartRequest];
  std::uint32_t request_size_ = 0;
  bool started_ = false, finished_ = false, command_ended_ = false;
  int exit_status_ = 0;
  int quiet_ms_ = 0;  // since the command's end, without anything happening
  Command command_;
  Output outputs_[2];
};

void Session::send_failure(FailStage stage, const Failure& failure) {
  std::byte payload[8 + kMaxText];
  const std::uint32_t words[2] = {static_cast<std::uint32_t>(stage), static_cast<std::uint32_t>(failure.error)};
  const auto length = static_cast<std::uint32_t>(strnlen(failure.text, kMaxText));
  memcpy(payload, words, sizeof words);
  memcpy(payload + sizeof words, failure.text, length);
  send(FrameType::kFailed, 0, payload, sizeof words + length);
  finished_ = true;
}

bool Session::handle(const Frame& frame) {
  switch (frame.type) {
    case FrameType::kConfigure:
      if (started_ || frame.payload.size() > sizeof request_ - request_size_) return false;
      memcpy(request_ + request_size_, frame.payload.data(), frame.payload.size());
      request_size_ += static_cast<std::uint32_t>(frame.payload.size());
      return true;
    case FrameType::kStart:
      return handle_start();
    case FrameType::kSignal:
      if (frame.word(0) < 1 || frame.word(0) > 64) return false;
      if (command_.pid > 0 && !command_ended_) kill(-command_.pid, static_cast<int>(frame.word(0)));
      return true;
    case FrameType::kWindowSize:
      resize_terminal(command_, frame.half(0), frame.half(1));
      return true;
    case FrameType::kData:
      return take_input(frame);
    case FrameType::kEndOfStream:
      if (static_cast<Stream>(frame.stream) != Stream::kInput) return false;
      input_ended_ = true;
      if (input_.used() == 0) close_input();
      return true;
    case FrameType::kCredit: {
      if (frame.stream == 0 || frame.word(0) > kWindow - output(frame.stream).credit) return false;
      output(frame.stream).credit += frame.word(0);
      return true;
    }
    case FrameType::kAbandon: {
      if (frame.stream == 0) return false;
      Output& out = output(frame.stream);
      out.abandoned = true;
      if (!command_.terminal) end_output(frame.stream);  // so that its writers get SIGPIPE
      return true;
    }
    default:
      return false;
  }
}

bool Session::handle_start() {
  if (started_ || finished_) return finished_;
  started_ = true;
  FailStage stage{};
  Failure failure;
  if (!start_command({request_, request_size_}, command_, stage, failure)) {
    send_failure(stage, failure);
    return true;
  }
  send(FrameType::kStarted, 0, nullptr, 0);
  outputs_[0].fd = command_.output;
  outputs_[1].fd = command_.error;
  if (command_.terminal) end_output(2);
  if (input_ended_ && input_.used() == 0) close_input();
  return true;
}

bool Session::take_input(const Frame& frame) {
  if (static_cast<Stream>(frame.stream) != Stream::kInput || input_ended_) return false;
  if (started_ && command_.input < 0) return true;  // its reader is gone: kAbandon is on its way to the monitor
  if (frame.payload.size() > input_.room()) return false;
  input_.push(frame.payload.data(), static_cast<std::uint32_t>(frame.payload.size()));
  return true;
}

void Session::close_input() {
  if (command_.input < 0) return;
  if (command_.terminal) (void)!write(command_.input, &kEndOfTransmission, 1);
  close(command_.input);
  command_.input = -1;
}

void Session::pass_input_on() {
  const ssize_t written =
      input_.drain([this](const void* data, size_t size) { return write(command_.input, data, size); });
  if (written < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (written < 0) {  // nobody reads it
    input_.start = input_.end = 0;
    close(command_.input);
    command_.input = -1;
    send(FrameType::kAbandon, Stream::kInput, nullptr, 0);
    return;
  }
  input_to_credit_ += static_cast<std::uint32_t>(written);
  if (input_to_credit_ >= kWindow / 4) {
    send(FrameType::kCredit, Stream::kInput, &input_to_credit_, sizeof input_to_credit_);
    input_to_credit_ = 0;
  }
  if (input_ended_ && input_.used() == 0) close_input();
}

void Session::end_output(unsigned stream) {
  Output& out = output(stream);
  if (out.ended) return;
  out.ended = true;
  if (out.fd >= 0) close(out.fd);
  if (stream == 1) command_.output = -1;
  out.fd = -1;
  send(FrameType::kEndOfStream, static_cast<std::uint8_t>(stream), nullptr, 0);
}

void Session::read_output(unsigned stream) {
  static std::byte data[kMaxPayload];
  Output& out = output(stream);
  const std::uint32_t wanted = out.abandoned || out.credit > kMaxPayload ? kMaxPayload : out.credit;
  const ssize_t size = read(out.fd, data, wanted);
  if (size > 0) {
    if (out.abandoned) return;
    out.credit -= static_cast<std::uint32_t>(size);
    send(FrameType::kData, static_cast<std::uint8_t>(stream), data, static_cast<std::uint32_t>(size));
    return;
  }
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
  // A terminal reads as EIO whenever nobody has it open; the command may open it again.
  if (size < 0 && command_.terminal && !command_ended_) {
    out.hung_up = true;
    return;
  }
  end_output(stream);
}

void Session::reap() {
  signalfd_siginfo information;
  while (read(children_, &information, sizeof information) > 0) {
  }
  int status = 0;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    if (pid != command_.pid || command_ended_) continue;
    command_ended_ = true;
    exit_status_ = status;
    // The zone is the command's: what it left running would keep its streams open for ever.
    kill(-1, SIGKILL);
    for (Output& out : outputs_) out.hung_up = false;
    if (command_.input >= 0) {
      close(command_.input);
      command_.input = -1;
      send(FrameType::kAbandon, Stream::kInput, nullptr, 0);
    }
  }
}

void Session::read_port() {
  static std::byte data[kFrameRoom];
  const ssize_t size = port_.read(data, sizeof data);
  if (size > 0) {
    if (!decoder_.feed({data, static_cast<size_t>(size)}, [this](const Frame& frame) { return handle(frame); }))
      power_off();  // not our monitor's language
  } else if (size == 0) {
    const timespec pause{0, 1'000'000};  // the monitor has not opened its end yet
    nanosleep(&pause, nullptr);
  }
}

void Session::wait_for_events() {
  pollfd fds[5] = {{-1, 0, 0},
                   {children_, POLLIN, 0},
                   {started_ && input_.used() > 0 ? command_.input : -1, POLLOUT, 0},
                   {-1, POLLIN, 0},
                   {-1, POLLIN, 0}};
  const bool no_wait = port_.prepare(port_events(), fds[0]);
  bool waiting_terminal = false;
  for (unsigned stream = 1; stream <= 2; ++stream) {
    Output& out = output(stream);
    waiting_terminal |= out.hung_up;
    if (out.fd >= 0 && !out.hung_up && (out.credit > 0 || out.abandoned) && outgoing_.room() >= kOutgoingReserve)
      fds[2 + stream].fd = out.fd;
    out.hung_up = false;
  }
  const int timeout = waiting_terminal || command_ended_ ? 100 : -1;
  const int ready = poll(fds, 5, no_wait ? 0 : timeout);
  const short port_ready = port_.ready(fds[0]);
  if (ready == 0 && port_ready == 0 && command_ended_ && output(1).credit > 0 && output(2).credit > 0)
    quiet_ms_ += timeout;
  if (ready <= 0 && port_ready == 0) return;
  if ((port_ready & POLLOUT) != 0) write_port();
  if ((port_ready & POLLIN) != 0) read_port();
  if (fds[2].revents != 0 && command_.input >= 0) pass_input_on();
  for (unsigned stream = 1; stream <= 2; ++stream)
    if (fds[2 + stream].revents != 0 && output(stream).fd == fds[2 + stream].fd && output(stream).fd >= 0)
      read_output(stream);
  if (fds[1].revents != 0) reap();
}

void Session::run() {
  sigset_t child_signal;
  sigemptyset(&child_signal);
  sigaddset(&child_signal, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child_signal, nullptr);
  children_ = signalfd(-1, &child_signal, SFD_NONBLOCK | SFD_CLOEXEC);
  signal(SIGPIPE, SIG_IGN);
  while (!finished_) {
    wait_for_events();
    if (command_ended_ && quiet_ms_ >= kStuckMs) {
      end_output(1);
      end_output(2);
    }
    if (!all_said()) continue;
    settle_disks();
    const bool signalled = WIFSIGNALED(exit_status_);
    const std::uint32_t how[2] = {
        static_cast<std::uint32_t>(signalled ? ExitKind::kSignal : ExitKind::kCode),
        static_cast<std::uint32_t>(signalled ? WTERMSIG(exit_status_) : WEXITSTATUS(exit_status_))};
    send(FrameType::kExited, 0, how, sizeof how);
    finished_ = true;
  }
  // The monitor switches the machine off when it has read the last frame.
  timespec start{}, now{};
  clock_gettime(CLOCK_MONOTONIC, &start);
  do {
    pollfd fd;
    const bool no_wait = port_.prepare(outgoing_.used() > 0 ? POLLOUT : 0, fd);
    poll(&fd, 1, no_wait ? 0 : 100);
    if ((port_.ready(fd) & POLLOUT) != 0) write_port();
    clock_gettime(CLOCK_MONOTONIC, &now);
  } while (outgoing_.used() > 0 || (now.tv_sec - start.tv_sec) * 1000 < kFarewellMs);
}

Session* make_session(Port& port) {
  alignas(Session) static std::byte storage[sizeof(Session)];  // over a MiB: not on the stack
  return new (storage) Session{port};
}

}  // namespace

void serve(Port& port, const Failure& root_failure) {
  Session* const session = make_session(port);
  session->say_hello();
  if (root_failure.text[0] != 0) session->send_failure(FailStage::kZone, root_failure);
  session->run();
}

}  // namespace bulkhead::agent
