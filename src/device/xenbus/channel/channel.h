// A byte channel between a program in the guest and the monitor. The program offers it: pages, an event channel and, in
// a directory of xenstore, where they are; we connect as the client (Vchan) and join it with a host end.
// Threads: connecting on the loop's thread; bytes on whichever calls back (a vCPU, the backend's), one at a time
// (SerialWork); nothing blocks. Nothing is dropped while the channel stands.
#pragma once
#include <atomic>
#include <memory>
#include <string>

#include "device/core/console/console_core.h"
#include "device/core/work/serial_work.h"
#include "device/xenbus/bus/loop.h"
#include "device/xenbus/bus/nodes.h"
#include "device/xenbus/channel/vchan.h"

namespace bulkhead::device::xenbus {

class Channel {
 public:
  // Makes `directory` (absolute, in the zone's data/), writable for the guest: that it is there tells the program that
  // we listen. All others outlive us.
  Channel(Loop& loop, StorePort& store, GrantPort& grants, EventPort& events, std::string directory,
          ConsoleBackend* backend);
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  bool connected();  // any thread but the backend's callbacks
  void quiesced(const std::function<void()>& change) { work_.exclusive(change); }

  enum CounterIndex : u8 { kConnects, kRefusals, kBrokenRings };
  const telemetry::CounterSet& counters() const { return counters_; }
  const ConsoleCore& core() const { return core_; }

 private:
  void offered();
  Result<void> connect(u32 reference, u32 port);
  void disconnect();
  void work(u64 bits);
  void drain();
  void fill();
  void hang_up();

  Loop& loop_;
  StorePort& store_;
  GrantPort& grants_;
  EventPort& events_;
  const std::string directory_;
  telemetry::CounterSet counters_{{"connects", "refusals", "broken_rings"}};
  ConsoleCore core_;
  StorePort::WatchId watch_ = 0;
  std::shared_ptr<std::atomic<Channel*>> self_;  // for tasks that outlive us; the loop's thread
  std::atomic<bool> queued_{false};
  u32 reference_ = 0, port_ = 0;  // of the connection; the loop's thread
  std::unique_ptr<Vchan> vchan_;  // work_'s
  SerialWork work_;
};

}  // namespace bulkhead::device::xenbus
