// One Xen console: a page with two rings that the guest shares [xen/io/console.h], an event channel, and the host end.
// Fidelity: complete. The protocol knows no window size.
// Threads: whoever calls back (a vCPU, a backend's thread) does the work, one at a time (SerialWork); nothing blocks.
// connect() and disconnect() from one thread at a time. Nothing is dropped: what the host end does not take stays in
// the ring, and the guest's driver waits.
#pragma once
#include <memory>

#include "device/core/console/console_core.h"
#include "device/core/work/serial_work.h"
#include "device/xenbus/ports.h"

namespace bulkhead::device::xenbus {

class PvConsole {
 public:
  // `backend` outlives us; null: output vanishes, there is never input.
  explicit PvConsole(ConsoleBackend* backend);
  ~PvConsole();

  // `page` stays valid until disconnect(). False: the guest has no such port for us. Takes the rings as they are, so
  // that a guest that kept them loses nothing.
  bool connect(std::byte* page, EventPort& events, u32 guest_port);
  void disconnect();  // also when not connected; returns when the page is not touched any more

  // Runs `change` while no byte moves. Not from the backend's callbacks.
  void quiesced(const std::function<void()>& change) { work_.exclusive(change); }

  enum CounterIndex : u8 { kBadIndexes, kNotifications };
  const telemetry::CounterSet& counters() const { return counters_; }
  const ConsoleCore& core() const { return core_; }

 private:
  void work(u64 bits);
  bool drain();  // guest to host; true: something moved
  bool fill();   // host to guest

  ConsoleCore core_;
  telemetry::CounterSet counters_{{"bad_indexes", "notifications"}};
  // These belong to work_.
  std::byte* page_ = nullptr;
  std::unique_ptr<EventChannel> channel_;
  SerialWork work_;
};

}  // namespace bulkhead::device::xenbus
