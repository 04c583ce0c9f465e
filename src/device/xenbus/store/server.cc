#include "device/xenbus/store/server.h"

namespace bulkhead::device::xenbus::store {

StoreServer::StoreServer(Store& store, Domid domain, std::byte* ring_page)
    : store_{store},
      domain_{domain},
      connection_{std::make_unique<Connection>(store, domain, ring_page, [this] { kick(); })} {}

Result<std::unique_ptr<StoreServer>> StoreServer::open(Store& store, Domid domain, std::byte* ring_page,
                                                       EventPort& events, u32 guest_port) {
  std::unique_ptr<StoreServer> server{new StoreServer{store, domain, ring_page}};
  server->channel_ = events.bind(guest_port, [raw = server.get()] { raw->kick(); });
  if (!server->channel_)
    return fail("xenstore: domain {} has no unbound event channel {} for its ring: allocate it for domain 0 first",
                domain, guest_port);
  store.introduce(domain);
  server->thread_ = std::thread{[raw = server.get()] { raw->run(); }};
  return server;
}

StoreServer::~StoreServer() {
  {
    std::lock_guard lock{mutex_};
    stop_ = true;
  }
  kicked_.notify_one();
  if (!thread_.joinable()) return;  // open() has failed
  thread_.join();
  channel_.reset();
  connection_.reset();
  store_.release(domain_);
}

void StoreServer::kick() {
  {
    std::lock_guard lock{mutex_};
    kick_ = true;
  }
  kicked_.notify_one();
}

void StoreServer::run() {
  for (;;) {
    {
      std::unique_lock lock{mutex_};
      kicked_.wait(lock, [this] { return kick_ || stop_; });
      if (stop_) return;
      kick_ = false;
    }
    const Connection::Pumped pumped = connection_->pump();
    if (pumped.notify) channel_->notify();
    if (pumped.more) kick();
  }
}

}  // namespace bulkhead::device::xenbus::store
