#include "container/shim/events.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "base/log.h"
#include "github.com/containerd/containerd/api/services/ttrpc/events/v1/events.pb.h"

namespace bulkhead::container {
namespace {

constexpr std::size_t kMostWaiting = 2048;
constexpr unsigned kMostTries = 300;
constexpr Nanoseconds kPause = 1'000'000'000;

}  // namespace

Events::Events(Loop& loop, const ShimFlags& flags, std::string ttrpc_address)
    : loop_{loop}, flags_{flags}, address_{std::move(ttrpc_address)} {}

Events::~Events() {
  if (program_fd_) loop_.forget(program_fd_.get());
}

void Events::publish(const std::string& topic, const std::string& type, const google::protobuf::MessageLite& event) {
  if (queue_.size() >= kMostWaiting) {
    if (!std::exchange(losing_, true)) log_warning("containerd does not listen: events from {} on are lost", topic);
    return;
  }
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  queue_.push_back({topic, type, event.SerializeAsString(), now.tv_sec, static_cast<i32>(now.tv_nsec)});
  if (!busy_) next();
}

void Events::next() {
  if (queue_.empty()) {
    busy_ = false;
    if (finished_) std::exchange(finished_, nullptr)();
    return;
  }
  busy_ = true;
  const Waiting& event = queue_.front();
  if (address_.empty()) return run_program(event);
  if (!connection_ || !connection_->open()) {
    auto fd = ttrpc::connect_to(address_);
    if (!fd) return try_later();
    connection_ = ttrpc::Connection::make(loop_, std::move(*fd), {}, nullptr, nullptr);
  }
  namespace wire = containerd::services::events::ttrpc::v1;
  wire::ForwardRequest request;
  wire::Envelope& envelope = *request.mutable_envelope();
  envelope.mutable_timestamp()->set_seconds(event.seconds);
  envelope.mutable_timestamp()->set_nanos(event.nanoseconds);
  envelope.set_namespace_(flags_.space);
  envelope.set_topic(event.topic);
  envelope.mutable_event()->set_type_url(event.type);
  envelope.mutable_event()->set_value(event.payload);
  connection_->call("containerd.services.events.ttrpc.v1.Events", "Forward", request,
                    [this](const ttrpc::Answer& answer) {
                      if (answer.code == ttrpc::Code::kUnavailable) return try_later();
                      if (!answer.good())
                        log_warning("containerd refuses the event {}: {}", queue_.front().topic, answer.text);
                      told();
                    });
}

void Events::told() {
  losing_ = false;
  queue_.pop_front();
  loop_.soon([this] { next(); });
}

void Events::try_later() {
  if (++queue_.front().tries > kMostTries) return told();
  loop_.after(kPause, [this] { next(); });
}

// `containerd publish` takes the event on stdin, as an Any.
void Events::run_program(const Waiting& event) {
  google::protobuf::Any any;
  any.set_type_url(event.type);
  any.set_value(event.payload);
  const std::string bytes = any.SerializeAsString();
  int ends[2];
  if (flags_.publish_program.empty() || ::pipe2(ends, O_CLOEXEC) != 0) return told();
  const UniqueFd in{ends[0]};
  UniqueFd out{ends[1]};
  (void)!::write(out.get(), bytes.data(), bytes.size());  // fits a pipe
  out.reset();
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, in.get(), 0);
  const std::string* words[] = {&flags_.publish_program, &flags_.address, &event.topic, &flags_.space};
  char* const arguments[] = {
      const_cast<char*>(words[0]->c_str()), const_cast<char*>("--address"),       const_cast<char*>(words[1]->c_str()),
      const_cast<char*>("publish"),         const_cast<char*>("--topic"),         const_cast<char*>(words[2]->c_str()),
      const_cast<char*>("--namespace"),     const_cast<char*>(words[3]->c_str()), nullptr};
  const int failed = ::posix_spawnp(&program_, arguments[0], &actions, nullptr, arguments, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) {
    log_warning("running {} to tell containerd of {}: {}", flags_.publish_program, event.topic, std::strerror(failed));
    return told();
  }
  program_fd_ = UniqueFd{static_cast<int>(::syscall(SYS_pidfd_open, program_, 0))};
  if (!program_fd_) return program_ended();
  loop_.watch(program_fd_.get(), POLLIN, [this](short) { program_ended(); });
}

void Events::program_ended() {
  int status = 0;
  while (::waitpid(program_, &status, 0) < 0 && errno == EINTR) {
  }
  program_ = -1;
  if (program_fd_) loop_.forget(program_fd_.get());
  program_fd_.reset();
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return told();
  try_later();
}

void Events::finish(Nanoseconds patience, Loop::Work done) {
  if (!busy_) return done();
  finished_ = std::move(done);
  loop_.after(patience, [this] {
    if (finished_) std::exchange(finished_, nullptr)();
  });
}

}  // namespace bulkhead::container
