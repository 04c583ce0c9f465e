#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <set>

#include "container/shim/actions.h"
#include "container/shim/service.h"

namespace bulkhead::container {
namespace {

// Takes connections as long as it lives.
class Listener {
 public:
  Listener(Loop& loop, UniqueFd fd, Service& service) : loop_{loop}, fd_{std::move(fd)}, service_{service} {
    ::fcntl(fd_.get(), F_SETFL, O_NONBLOCK);
    ::fcntl(fd_.get(), F_SETFD, FD_CLOEXEC);
    ::listen(fd_.get(), 128);  // once more, so that those who connect are told our process and not our parent's
    loop_.watch(fd_.get(), POLLIN, [this](short) { take(); });
  }

 private:
  void take() {
    UniqueFd fd{::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC)};
    if (!fd) return;
    ucred peer{};
    socklen_t size = sizeof peer;
    // The folder is root's, and so is whoever may ask for containers.
    if (::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.uid != ::geteuid()) return;
    auto slot = std::make_shared<std::weak_ptr<ttrpc::Connection>>();
    auto connection = ttrpc::Connection::make(
        loop_, std::move(fd), {},
        [this](const ttrpc::Call& call, ttrpc::Responder answer) { service_.handle(call, std::move(answer)); },
        [this, slot] { connections_.erase(slot->lock()); });
    *slot = connection;
    connections_.insert(std::move(connection));
  }

  Loop& loop_;
  UniqueFd fd_;
  Service& service_;
  std::set<std::shared_ptr<ttrpc::Connection>> connections_;
};

std::string environment(const char* name) {
  const char* const value = ::getenv(name);
  return value != nullptr ? value : "";
}

}  // namespace

Result<void> serve_action(const ShimFlags& flags) {
  UniqueFd listening{kListeningFd};
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGHUP, SIG_IGN);
  ::prctl(PR_SET_NAME, "bulkhead-shim");
  const std::string socket = server_socket(flags, flags.id);
  BH_ASSIGN(Share share, Share::make());
  Loop loop;
  Events events{loop, flags, environment("TTRPC_ADDRESS")};
  Service service{loop, flags, share, events, STDERR_FILENO};
  const Listener listener{loop, std::move(listening), service};
  loop.run();
  ::unlink(socket.c_str());
  return {};
}

}  // namespace bulkhead::container
