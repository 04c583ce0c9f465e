#include "container/shim/streams.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

namespace bulkhead::container {
namespace {

constexpr u32 kPiece = 32 * 1024;

// Opened for both ways, a FIFO neither waits for a reader nor breaks when the reader goes: containerd may be restarted.
Result<UniqueFd> open_output(const std::string& path) {
  if (path.empty()) return UniqueFd{};
  constexpr std::string_view kFile = "file://";
  if (path.starts_with(kFile)) {
    UniqueFd file{::open(path.c_str() + kFile.size(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640)};
    if (!file) return fail_errno("opening {}", path);
    return file;
  }
  if (!path.starts_with('/')) return fail("output to {}: only FIFOs and file:// are supported", path);
  struct stat status{};
  UniqueFd fd{::open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC)};
  if (!fd || ::fstat(fd.get(), &status) != 0) return fail_errno("opening {}", path);
  return fd;
}

}  // namespace

Result<std::shared_ptr<Streams>> Streams::open(Loop& loop, Pod& pod, pod::ProcessName name, const StreamPaths& paths) {
  std::shared_ptr<Streams> made{new Streams{loop, pod, std::move(name)}};
  BH_ASSIGN(made->outputs_[0].fd, open_output(paths.output));
  if (!paths.terminal) {
    BH_ASSIGN(made->outputs_[1].fd, open_output(paths.error));
  }
  if (!paths.input.empty()) {
    made->input_ = UniqueFd{::open(paths.input.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)};
    if (!made->input_) return fail_errno("opening {}", paths.input);
  }
  return made;
}

Streams::~Streams() { close(); }

void Streams::begin() {
  if (std::exchange(begun_, true)) return;
  for (const unsigned index : {0u, 1u}) {
    if (!outputs_[index].fd) continue;
    loop_.watch(outputs_[index].fd.get(), 0, [weak = weak_from_this(), index](short events) {
      const auto self = weak.lock();
      if (self && (events & POLLOUT) != 0) self->pass(index);
    });
    ask(index);
  }
  if (input_)
    loop_.watch(input_.get(), POLLIN, [weak = weak_from_this()](short events) {
      if (const auto self = weak.lock()) self->read_input(events);
    });
}

void Streams::ask(unsigned index) {
  pod::ReadRequest request;
  *request.mutable_name() = name_;
  request.set_stream(index + 1);
  request.set_size(kPiece);
  pod_.call("Read", request, [weak = weak_from_this(), index](const ttrpc::Answer& answer) {
    const auto self = weak.lock();
    if (!self || !self->outputs_[index].fd) return;
    pod::ReadResponse response;
    if (!answer.good() || !response.ParseFromString(answer.payload) || response.data().empty()) return self->end(index);
    self->outputs_[index].piece += response.data();
    self->pass(index);
  });
}

void Streams::pass(unsigned index) {
  Output& output = outputs_[index];
  while (!output.piece.empty()) {
    const ssize_t size = ::write(output.fd.get(), output.piece.data(), output.piece.size());
    if (size < 0 && errno == EAGAIN) return loop_.change(output.fd.get(), POLLOUT);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return end(index);
    output.piece.erase(0, static_cast<std::size_t>(size));
    passed_ += static_cast<u64>(size);
  }
  loop_.change(output.fd.get(), 0);
  ask(index);
}

void Streams::end(unsigned index) {
  if (outputs_[index].fd) loop_.forget(outputs_[index].fd.get());
  outputs_[index].fd.reset();
  outputs_[index].piece.clear();
  if (ended() && drained_) loop_.soon(std::exchange(drained_, nullptr));
}

void Streams::drained(Nanoseconds patience, Loop::Work done) {
  if (ended() || !begun_) return done();
  drained_ = std::move(done);
  probe(patience);
}

// The agent answers in order and reads before it answers: when it answers a call made after our Reads, and those still
// wait, then there is nothing to be read. Wait is such a call, for the process has ended.
void Streams::probe(Nanoseconds patience) {
  pod_.call("Wait", name_, [weak = weak_from_this(), patience, passed = passed_](const ttrpc::Answer&) {
    if (const auto self = weak.lock(); self && self->drained_) self->probed(patience, passed);
  });
}

void Streams::probed(Nanoseconds patience, u64 passed) {
  const bool waits_for_reader = !outputs_[0].piece.empty() || !outputs_[1].piece.empty();
  if (waits_for_reader) return wait_for_reader(patience, passed_);
  if (passed_ != passed) return probe(patience);
  loop_.soon(std::exchange(drained_, nullptr));
}

void Streams::wait_for_reader(Nanoseconds patience, u64 passed) {
  loop_.after(patience, [weak = weak_from_this(), patience, passed] {
    const auto self = weak.lock();
    if (!self || !self->drained_) return;
    if (self->passed_ != passed) return self->probe(patience);
    std::exchange(self->drained_, nullptr)();
  });
}

void Streams::read_input(short events) {
  char piece[kPiece];
  const ssize_t size = ::read(input_.get(), piece, sizeof piece);
  if (size < 0 && errno != EAGAIN && errno != EINTR) return end_input();
  // Without a writer a FIFO reads as ended; that it has had one and lost it is what POLLHUP tells.
  if (size == 0 && (input_closing_ || (events & POLLHUP) != 0)) return end_input();
  if (size < 0 && input_closing_) return end_input();
  if (size <= 0) return;
  loop_.change(input_.get(), 0);
  pod::WriteRequest request;
  *request.mutable_name() = name_;
  request.set_data(piece, static_cast<std::size_t>(size));
  pod_.call("Write", request, [weak = weak_from_this()](const ttrpc::Answer& answer) {
    const auto self = weak.lock();
    if (!self || !self->input_) return;
    if (!answer.good()) {  // nobody reads it: whoever writes is to see that
      self->loop_.forget(self->input_.get());
      self->input_.reset();
      return;
    }
    if (self->input_closing_) return self->read_input(0);
    self->loop_.change(self->input_.get(), POLLIN);
  });
  // POLLHUP comes whether it is asked for or not: not while a piece is on its way.
  if ((events & POLLHUP) != 0) {
    loop_.forget(input_.get());
    input_closing_ = true;
  }
}

void Streams::close_input() {
  if (!input_ || input_closing_) return;
  input_closing_ = true;
  if (begun_) read_input(0);
}

void Streams::end_input() {
  loop_.forget(input_.get());
  input_.reset();
  pod_.call("CloseInput", name_, [](const ttrpc::Answer&) {});
}

void Streams::close() {
  for (const unsigned index : {0u, 1u}) end(index);
  if (input_) loop_.forget(input_.get());
  input_.reset();
}

}  // namespace bulkhead::container
