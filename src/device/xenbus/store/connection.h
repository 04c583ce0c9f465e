// One domain's connection over its ring: puts requests together, answers them, and sends watch events. Bounded: while
// the domain does not take what it was sent, no more is read. Nonsense in the ring closes the connection until the
// domain asks for a new one [xenstore-ring "The connection error feature", "The ring reconnection feature"].
#pragma once
#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "device/xenbus/store/event_queue.h"
#include "device/xenbus/store/requests.h"
#include "device/xenbus/store/ring.h"

namespace bulkhead::device::xenbus::store {

// pump() on one thread at a time.
class Connection final : public WatchSink {
 public:
  // `wake` is called, on any thread and with the store locked, when there is something for pump() to do.
  Connection(Store& store, Domid domain, std::byte* page, std::function<void()> wake);

  // Does what can be done now, but no more than a bounded part of it.
  struct Pumped {
    bool notify = false;  // the domain has something to look at
    bool more = false;    // call again
  };
  Pumped pump();
  bool closed() const { return closed_; }

  void watch_event(const WatchRef& watch, std::string_view path) override;
  void watch_removed(const WatchRef& watch) override;

 private:
  enum class Step : u8 { kMoved, kWaits, kBadRing };
  Step send();
  Step receive();
  bool next_to_send();
  bool may_receive();
  void finish_request();
  void forget_all();
  void close(u32 error);

  Store& store_;
  Ring ring_;
  const std::function<void()> wake_;
  EventQueue events_;
  bool closed_ = false, stalled_ = false;
  std::array<std::byte, sizeof(xsd_sockmsg) + XENSTORE_PAYLOAD_MAX> request_;
  std::size_t received_ = 0;          // bytes of request_
  std::deque<std::string> replies_;   // whole messages
  std::string sending_;               // one whole message
  std::size_t sent_ = 0;              // bytes of it
  std::unique_ptr<Session> session_;  // last: tells us of events until it is gone
};

}  // namespace bulkhead::device::xenbus::store
