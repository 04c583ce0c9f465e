#include "zone/agent_loop.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "zone/session/terminal.h"

namespace bulkhead::zone {
namespace {

using agent::Stream;
using machine::Outcome;

constexpr Nanoseconds kSecond = 1'000'000'000;
constexpr Nanoseconds kPanicGrace = 2 * kSecond;   // for the reset that follows a panic
constexpr Nanoseconds kSignalGrace = 5 * kSecond;  // for the command to end on the signal that was passed on
constexpr std::size_t kPiece = 64_KiB;
constexpr int kTickMs = 200;

}  // namespace

AgentLoop::AgentLoop(AgentLoopConfig config, AgentPort& port, ConsoleLog& console, Wake& wake, Workshop& workshop,
                     Milestones& milestones, std::function<void()> stop_machine, std::function<void()> serve_requests)
    : config_{std::move(config)},
      port_{port},
      console_{console},
      wake_{wake},
      workshop_{workshop},
      milestones_{milestones},
      stop_machine_{std::move(stop_machine)},
      serve_requests_{std::move(serve_requests)},
      input_{STDIN_FILENO, HostStream::Direction::kInput},
      output_{STDOUT_FILENO, HostStream::Direction::kOutput},
      error_{STDERR_FILENO, HostStream::Direction::kOutput} {}

void AgentLoop::machine_finished(Outcome outcome) {
  outcome_ = std::move(outcome);
  finished_.store(true, std::memory_order_release);
  wake_.notify();
}

void AgentLoop::stop() {
  if (std::exchange(stopped_, true)) return;
  stop_machine_();
}

void AgentLoop::give_up(std::string why, bool console_tells) {
  if (failure_.empty() && !ending_) {
    failure_ = std::move(why);
    console_tells_ = console_tells;
  }
  stop();
}

AgentLoop::Result AgentLoop::run() {
  began_ = clock_.now();
  workshop_.progress.begin("starting the zone");
  while (!finished() || (output_waits() && !hurry_)) step();
  look_at_session();  // what came with the machine's last breath
  while (output_waits() && !hurry_) step();
  workshop_.progress.done();
  return conclude();
}

bool AgentLoop::output_waits() {
  return port_.with([&](AgentSession& session) {
    return (output_.open() && !session.pending(Stream::kOutput).empty()) ||
           (error_.open() && !session.pending(Stream::kError).empty());
  });
}

void AgentLoop::step() {
  look_at_session();
  look_at_console();
  look_at_deadlines();
  wait_for_events();
  handle_signals();
  if (input_wanted_) pump_input();
  if (waits_[0]) pump_output(Stream::kOutput, output_);
  if (waits_[1]) pump_output(Stream::kError, error_);
}

void AgentLoop::look_at_session() {
  std::string broken;
  port_.with([&](AgentSession& session) {
    broken = session.broken();
    if (session.agent_is_up() && !milestones_.agent_up) {
      milestones_.agent_up = clock_.now();
      if (!session.ending()) session.start(config_.start_request);
    }
    if (session.command_started() && !started_) {
      started_ = true;
      milestones_.command_started = clock_.now();
    }
    if (session.ending() && !ending_) {
      ending_ = session.ending();
      milestones_.command_ended = clock_.now();
    }
    input_wanted_ = started_ && !ending_ && !input_done_ && session.input_room() > 0;
    waits_ = {!session.pending(Stream::kOutput).empty(), !session.pending(Stream::kError).empty()};
  });
  if (started_ || ending_) workshop_.progress.done();
  if (ending_) stop();
  if (!broken.empty()) give_up("the agent in the zone broke its protocol: " + broken, false);
}

void AgentLoop::look_at_console() {
  if (!milestones_.first_console_byte) milestones_.first_console_byte = console_.first_byte_at();
  if (!panic_deadline_ && !console_.panic().empty()) panic_deadline_ = clock_.now() + kPanicGrace;
}

void AgentLoop::look_at_deadlines() {
  const Nanoseconds now = clock_.now();
  if (panic_deadline_ && now >= *panic_deadline_) give_up("the guest kernel panicked: " + console_.panic(), true);
  if (grace_deadline_ && now >= *grace_deadline_) {
    by_force_ = hurry_ = true;
    stop();
  }
  if (!milestones_.agent_up && now - began_ >= config_.boot_timeout)
    give_up(fmt::format("the zone did not reach its agent within {} s (see --boot-timeout)",
                        config_.boot_timeout / kSecond),
            true);
}

void AgentLoop::wait_for_events() {
  workshop_.progress.tick();
  const bool immediate = (input_wanted_ && input_.always_ready()) || (waits_[0] && output_.always_ready()) ||
                         (waits_[1] && error_.always_ready());
  pollfd fds[5] = {{wake_.fd(), POLLIN, 0},
                   {workshop_.signals->fd(), POLLIN, 0},
                   {input_wanted_ ? input_.poll_fd() : -1, POLLIN, 0},
                   {waits_[0] ? output_.poll_fd() : -1, POLLOUT, 0},
                   {waits_[1] ? error_.poll_fd() : -1, POLLOUT, 0}};
  const bool deadline = !milestones_.agent_up || panic_deadline_ || grace_deadline_;
  ::poll(fds, 5, immediate ? 0 : deadline ? kTickMs : -1);
  if (fds[0].revents != 0) wake_.clear();
  serve_requests_();
}

bulkhead::Result<void> AgentLoop::ask_to_end(Nanoseconds patience) {
  if (told_ == 0) told_ = SIGTERM;
  if (ending_) return {};
  if (!started_) {  // nobody to pass it on to
    hurry_ = true;
    stop();
    return {};
  }
  const Nanoseconds deadline = clock_.now() + patience;
  grace_deadline_ = std::min(deadline, grace_deadline_.value_or(deadline));
  port_.with([&](AgentSession& session) { session.send_signal(SIGTERM); });
  return {};
}

void AgentLoop::kill() {
  told_ = SIGKILL;
  hurry_ = true;
  stop();
}

bulkhead::Result<void> AgentLoop::may_reboot() const {
  return fail("the zone runs one command and ends with it: it cannot be rebooted (zones of `bulkhead boot` can)");
}

void AgentLoop::handle_signals() {
  while (const int number = workshop_.signals->next()) {
    if (number == SIGWINCH) {
      const auto size = our_terminal_size();
      if (config_.terminal && size)
        port_.with([&](AgentSession& session) { session.send_window_size(size->columns, size->rows); });
      continue;
    }
    if (grace_deadline_ || !started_ || ending_) {  // the second one, or nobody to pass it on to
      hurry_ = true;
      stop();
      continue;
    }
    grace_deadline_ = clock_.now() + kSignalGrace;
    port_.with([&](AgentSession& session) { session.send_signal(number); });
  }
}

void AgentLoop::pump_input() {
  std::byte buffer[kPiece];
  const std::size_t room = port_.with([](AgentSession& session) { return session.input_room(); });
  const std::size_t size = input_.read(std::span{buffer}.first(std::min(room, kPiece)));
  if (size == 0 && input_.open()) return;
  port_.with([&](AgentSession& session) {
    if (size > 0 && size <= session.input_room()) session.push_input(std::span{buffer}.first(size));
    if (!input_.open()) session.end_input();
  });
  if (!input_.open()) input_done_ = true;
}

void AgentLoop::pump_output(Stream stream, HostStream& to) {
  std::string piece;
  port_.with([&](AgentSession& session) { piece = session.pending(stream).substr(0, kPiece); });
  const std::size_t written = to.write(piece);
  port_.with([&](AgentSession& session) {
    if (written > 0) session.consume(stream, written);
    if (!to.open()) session.abandon(stream);
  });
}

std::string AgentLoop::outcome_text() const {
  const std::string_view when = started_ ? "before the command ended" : "before the command started";
  switch (outcome_.kind) {
    case Outcome::Kind::kPowerOff:
      return fmt::format("the zone powered off {}", when);
    case Outcome::Kind::kReset:
      return fmt::format("the zone reset itself {}", when);
    case Outcome::Kind::kDebugExit:
      return fmt::format("the zone ended by its debug-exit device {}", when);
    case Outcome::Kind::kTripleFault:
      return fmt::format("the zone ended by a triple fault {}: {}", when, outcome_.reason);
    case Outcome::Kind::kHalted:
      return fmt::format("all vCPUs of the zone halted for good {}: {}", when, outcome_.reason);
    case Outcome::Kind::kCrashed:
      return fmt::format("the zone crashed {}: {}", when, outcome_.reason);
    case Outcome::Kind::kEngineFailure:
      return fmt::format("the engine cannot go on: {}", outcome_.reason);
    case Outcome::Kind::kStopped:
      break;
  }
  return fmt::format("the zone was stopped {}", when);
}

AgentLoop::Result AgentLoop::conclude() {
  if (ending_) {
    Result result{ending_->exit_status(), {}, false, false};
    if (ending_->kind == Ending::Kind::kZoneFailed)
      result = {125, "the zone could not be set up: " + ending_->text, false, false};
    if (ending_->kind == Ending::Kind::kCommandFailed) result.error = ending_->text;
    result.by_force = by_force_;
    return result;
  }
  if (told_ != 0) return {128 + told_, {}, false, by_force_};
  if (const int number = workshop_.signals->first(); number != 0) return {128 + number, {}, false, by_force_};
  if (const std::string panic = console_.panic(); !panic.empty())
    return {125, "the guest kernel panicked: " + panic, true, false};
  if (!failure_.empty()) return {125, failure_, console_tells_, false};
  return {125, outcome_text(), true, false};
}

}  // namespace bulkhead::zone
