// The store's end of a zone's ring: a thread that answers its requests.
#pragma once
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "base/result.h"
#include "device/xenbus/ports.h"
#include "device/xenbus/store/connection.h"

namespace bulkhead::device::xenbus::store {

class StoreServer {
 public:
  // `ring_page` is the page that the zone knows as its xenstore ring (kPageSize bytes, page aligned), `guest_port` its
  // event channel. All outlive us. Error: the zone has no such unbound port.
  static Result<std::unique_ptr<StoreServer>> open(Store& store, Domid domain, std::byte* ring_page, EventPort& events,
                                                   u32 guest_port);
  // Waits for the request that is being answered, if any. The domain counts as released from then on.
  ~StoreServer();

 private:
  StoreServer(Store& store, Domid domain, std::byte* ring_page);
  void kick();
  void run();

  Store& store_;
  const Domid domain_;
  std::mutex mutex_;
  std::condition_variable kicked_;
  bool kick_ = true, stop_ = false;  // under mutex_
  std::unique_ptr<Connection> connection_;
  std::unique_ptr<EventChannel> channel_;
  std::thread thread_;
};

}  // namespace bulkhead::device::xenbus::store
