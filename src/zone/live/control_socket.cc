#include "zone/live/control_socket.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "base/thread.h"
#include "zone/live/line_reader.h"
#include "zone/session/wake.h"

namespace bulkhead::zone {
namespace {

constexpr std::size_t kPiece = 16_KiB;
constexpr int kTickMs = 1000;  // how exact `patience` is

bool is_ours(int fd) {
  ucred peer{};
  socklen_t size = sizeof peer;
  return ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && (peer.uid == ::geteuid() || peer.uid == 0);
}

struct Client {
  Client(UniqueFd a_fd, u64 a_serial, Nanoseconds now) : fd{std::move(a_fd)}, serial{a_serial}, last{now} {}
  UniqueFd fd;
  u64 serial;
  Nanoseconds last;  // when it last did something
  LineReader in{kMaxRequestLine};
  std::string out;
  bool busy = false;   // a request of its is in work
  bool ended = false;  // it will send no more
  bool gone = false;

  bool listens() const { return !busy && out.empty() && !ended && !in.has_line(); }
  void read() {
    char buffer[kPiece];
    const ssize_t size = ::recv(fd.get(), buffer, std::min(sizeof buffer, in.room()), MSG_DONTWAIT);
    if (size > 0) in.feed({buffer, static_cast<std::size_t>(size)});
    if (size == 0) ended = true;
    if (size < 0 && errno != EAGAIN && errno != EINTR) gone = true;
  }
  void write() {
    const ssize_t size = ::send(fd.get(), out.data(), out.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (size > 0) out.erase(0, static_cast<std::size_t>(size));
    if (size < 0 && errno != EAGAIN && errno != EINTR) gone = true;
  }
};

}  // namespace

class ControlSocket::Loop : public std::enable_shared_from_this<ControlSocket::Loop> {
 public:
  Loop(SocketPlace place, Handler handler, Nanoseconds patience)
      : place_{std::move(place)}, handler_{std::move(handler)}, patience_{patience} {}

  void run() {
    while (!stop_.load(std::memory_order_acquire)) step();
    place_.leave();
    take_answers();
    for (Client& client : clients_) {
      if (client.busy) client.out += error_line("the zone has ended");
      if (!client.out.empty()) client.write();
    }
    clients_.clear();
  }

  void free_name() { place_.free_name(); }

  void stop() {
    stop_.store(true, std::memory_order_release);
    wake_.notify();
  }

  void answer(u64 serial, std::string line) {
    {
      const Lock lock{mutex_};
      answers_.emplace_back(serial, std::move(line));
    }
    wake_.notify();
  }

 private:
  class Reply final : public Answer {
   public:
    Reply(std::shared_ptr<Loop> loop, u64 serial) : loop_{std::move(loop)}, serial_{serial} {}
    ~Reply() override { send(error_line("the zone did not answer")); }

   private:
    void send(std::string line) override {
      if (!sent_.exchange(true)) loop_->answer(serial_, std::move(line));
    }
    std::shared_ptr<Loop> loop_;
    const u64 serial_;
    std::atomic<bool> sent_ = false;
  };

  void step() {
    std::vector<pollfd> fds = {{wake_.fd(), POLLIN, 0}, {deaf_ ? -1 : place_.fd(), POLLIN, 0}};
    for (const Client& client : clients_) {
      const int wanted = (client.listens() ? POLLIN : 0) | (client.out.empty() ? 0 : POLLOUT);
      fds.push_back({client.fd.get(), static_cast<short>(wanted), 0});
    }
    ::poll(fds.data(), fds.size(), clients_.empty() && !deaf_ ? -1 : kTickMs);
    deaf_ = false;
    wake_.clear();
    for (std::size_t i = 0; i < clients_.size(); ++i) serve(clients_[i], fds[i + 2].revents);
    take_answers();
    for (Client& client : clients_) work(client);
    const Nanoseconds now = clock_.now();
    std::erase_if(clients_, [&](const Client& c) { return c.gone || (!c.busy && now - c.last > patience_); });
    if (fds[1].revents != 0) welcome();
  }

  void serve(Client& client, short events) {
    if ((events & (POLLHUP | POLLERR | POLLNVAL)) != 0 && (events & POLLIN) == 0) client.gone = true;
    if (client.gone || events == 0) return;
    client.last = clock_.now();
    if ((events & POLLIN) != 0) client.read();
    if ((events & POLLOUT) != 0) client.write();
  }

  void work(Client& client) {
    while (!client.gone && !client.busy && client.out.empty())
      if (!work_once(client)) return;
  }

  // False: there is nothing to do before it sends more.
  bool work_once(Client& client) {
    if (client.in.too_long()) {
      client.out = error_line(fmt::format("the request is longer than {} bytes", kMaxRequestLine));
      client.write();
      client.gone = true;
      return false;
    }
    const auto line = client.in.next();
    if (!line) {
      client.gone = client.ended;
      return false;
    }
    client.last = clock_.now();
    const auto request = parse_request(*line);
    if (!request) {
      client.out = error_line(request.error().message);
      client.write();
      return true;
    }
    client.busy = true;
    handler_(*request, std::make_shared<Reply>(shared_from_this(), client.serial));
    return true;
  }

  void take_answers() {
    std::vector<std::pair<u64, std::string>> answers;
    {
      const Lock lock{mutex_};
      answers.swap(answers_);
    }
    for (auto& [serial, line] : answers) {
      const auto client = std::ranges::find(clients_, serial, &Client::serial);
      if (client == clients_.end()) continue;  // it did not wait
      client->busy = false;
      client->last = clock_.now();
      client->out += line;
      client->write();
    }
  }

  void welcome() {
    UniqueFd fd{::accept4(place_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)};
    if (!fd) {
      deaf_ = errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS;  // for a tick, not for a spin
      return;
    }
    if (!is_ours(fd.get())) return;
    if (clients_.size() >= kMaxClients) {
      const std::string line = error_line(fmt::format("the zone has {} visitors already; try again", kMaxClients));
      (void)!::send(fd.get(), line.data(), line.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      return;
    }
    clients_.emplace_back(std::move(fd), ++last_serial_, clock_.now());
  }

  SocketPlace place_;
  const Handler handler_;
  const Nanoseconds patience_;
  const HostClock clock_;
  Wake wake_;
  std::atomic<bool> stop_ = false;
  Mutex mutex_;
  std::vector<std::pair<u64, std::string>> answers_ BH_GUARDED_BY(mutex_);
  // The thread's.
  std::vector<Client> clients_;
  u64 last_serial_ = 0;
  bool deaf_ = false;
};

ControlSocket::ControlSocket(SocketPlace place, Handler handler, Nanoseconds patience)
    : name_{place.name()}, loop_{std::make_shared<Loop>(std::move(place), std::move(handler), patience)} {
  thread_ = start_thread("bh-control", [loop = loop_] { loop->run(); });
}

void ControlSocket::free_name() { loop_->free_name(); }

ControlSocket::~ControlSocket() {
  loop_->stop();
  thread_.join();
}

}  // namespace bulkhead::zone
