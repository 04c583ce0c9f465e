#include "zone/boot_loop.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>

namespace bulkhead::zone {
namespace {

constexpr Nanoseconds kPanicGrace = 2'000'000'000;  // for the reset that may follow a panic
constexpr std::byte kEscape{1};                     // Ctrl-A, then x: ends the zone; twice: one Ctrl-A

}  // namespace

BootLoop::BootLoop(ConsoleHub& hub, ConsoleLog& log, Wake& wake, Workshop& workshop, Milestones& milestones)
    : hub_{hub},
      log_{log},
      wake_{wake},
      workshop_{workshop},
      milestones_{milestones},
      input_{STDIN_FILENO, HostStream::Direction::kInput},
      output_{STDOUT_FILENO, HostStream::Direction::kOutput} {}

void BootLoop::machine_finished(machine::Outcome outcome) {
  outcome_ = std::move(outcome);
  finished_.store(true, std::memory_order_release);
  wake_.notify();
}

void BootLoop::stop(Why why) {
  if (stopped_ || machine_ == nullptr) return;
  stopped_ = true;
  why_ = why;
  machine_->stop();
}

// Asked again and again: the kernel may not have got so far that it listens.
Result<void> BootLoop::ask_to_end(Nanoseconds patience) {
  BH_ASSIGN(const machine::Asked asked, machine_->request_shutdown(machine::ShutdownRequest::kPowerOff));
  asked_ = asked == machine::Asked::kAsked;
  const Nanoseconds deadline = clock_.now() + patience;
  end_deadline_ = std::min(deadline, end_deadline_.value_or(deadline));
  return {};
}

void BootLoop::look_at_deadlines() {
  if (!panic_deadline_ && !log_.panic().empty()) panic_deadline_ = clock_.now() + kPanicGrace;
  if (panic_deadline_ && clock_.now() >= *panic_deadline_) stop(Why::kPanic);
  if (!end_deadline_ || machine_ == nullptr) return;
  if (clock_.now() >= *end_deadline_) return stop(Why::kTold);
  if (!asked_) asked_ = machine_->request_shutdown(machine::ShutdownRequest::kPowerOff) == machine::Asked::kAsked;
}

machine::Outcome BootLoop::run(machine::Machine& machine, const std::function<void()>& serve_requests) {
  machine_ = &machine;
  panic_deadline_.reset();
  log_.forget_panic();
  while (!finished_.load(std::memory_order_acquire)) {
    serve_requests();
    step();
  }
  // For the next life, and not at its beginning: a machine may be faster than we are.
  finished_.store(false, std::memory_order_release);
  machine_ = nullptr;
  return std::move(outcome_);
}

void BootLoop::drain() {
  while (output_.open() && !hub_.output().empty() && workshop_.signals->first() == 0) step();
}

void BootLoop::step() {
  if (!milestones_.first_console_byte) milestones_.first_console_byte = log_.first_byte_at();
  look_at_deadlines();
  const bool has_output = !hub_.output().empty();
  const bool wants_input = input_.open() && hub_.input_room() > 0;
  const bool immediate = (has_output && output_.always_ready()) || (wants_input && input_.always_ready());
  pollfd fds[4] = {{wake_.fd(), POLLIN, 0},
                   {workshop_.signals->fd(), POLLIN, 0},
                   {wants_input ? input_.poll_fd() : -1, POLLIN, 0},
                   {has_output ? output_.poll_fd() : -1, POLLOUT, 0}};
  ::poll(fds, 4, immediate ? 0 : panic_deadline_ || end_deadline_ ? 100 : -1);
  if (fds[0].revents != 0) wake_.clear();
  handle_signals();
  if (wants_input) pump_input();
  if (has_output) pump_output();
}

void BootLoop::handle_signals() {
  while (const int number = workshop_.signals->next())
    if (number != SIGWINCH) stop(Why::kSignal);
}

// Takes Ctrl-A sequences out of what was typed; true when the user asked to end.
bool BootLoop::escape(std::span<std::byte> bytes, std::size_t& kept) {
  kept = 0;
  for (const std::byte byte : bytes) {
    if (std::exchange(escaped_, false)) {
      if (byte == std::byte{'x'}) return true;
      if (byte != kEscape) continue;
    } else if (byte == kEscape) {
      escaped_ = true;
      continue;
    }
    bytes[kept++] = byte;
  }
  return false;
}

void BootLoop::pump_input() {
  std::byte buffer[4096];
  std::size_t size = input_.read(std::span{buffer}.first(std::min(hub_.input_room(), sizeof buffer)));
  if (size == 0) return;
  if (input_.is_terminal() && escape(std::span{buffer}.first(size), size)) {
    stop(Why::kUser);
    return;
  }
  hub_.put_input(std::span{buffer}.first(size));
}

void BootLoop::pump_output() {
  const std::size_t written = output_.write(hub_.output());
  if (written > 0) hub_.consume_output(written);
  if (output_.open()) return;
  hub_.drop_output();
  stop(Why::kNobodyListens);
}

}  // namespace bulkhead::zone
