// The xenbus of one zone: toolstack and backends in one. Writes each device's nodes as libxl does, follows the
// frontend's XenbusState and answers with the backend's [xen/io/xenbus.h], adds and removes devices while the zone
// runs. Fidelity: connecting, closing, reconnecting after a reboot or kexec, unplugging with and without force.
// Missing: Reconfiguring, which only PCI uses. Where a frontend's set-up is refused the backend goes to Closing, as
// Linux's does. Threads: everything is done on the loop's; the methods may be called from any but a store's watch
// callback.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "base/sync.h"
#include "device/xenbus/bus/backend.h"
#include "device/xenbus/bus/loop.h"
#include "telemetry/counter.h"

namespace bulkhead::device::xenbus {

enum class State : u8 {  // XenbusState
  kUnknown,
  kInitialising,
  kInitWait,
  kInitialised,
  kConnected,
  kClosing,
  kClosed,
  kReconfiguring,
  kReconfigured
};

enum class Unplug : u8 {
  kAsk,    // the guest may keep the device; if it lets go later, it is removed then
  kForce,  // when the guest has not let go in time, it is taken away
};
enum class Unplugged : u8 { kGone, kForced, kRefused, kNoSuchDevice };

class BackendBus {
 public:
  static constexpr Nanoseconds kPatience = 10'000'000'000;  // as libxl's

  // `loop` and `store` outlive us. `domain`: the zone's domain id; we are domain 0. `patience`: how long an unplugged
  // device's guest has to let go.
  BackendBus(Loop& loop, StorePort& store, u16 domain, Nanoseconds patience = kPatience);
  // Disconnects all devices; leaves their nodes.
  ~BackendBus();
  BackendBus(const BackendBus&) = delete;
  BackendBus& operator=(const BackendBus&) = delete;

  // When it returns the guest can find the device. Fails if the zone has one of that kind and number. `gone` is called
  // on the loop's thread when the device was unplugged, however late, and its Backend does not exist any more.
  Result<void> add(u32 id, std::unique_ptr<Backend> backend, std::function<void()> gone = {});
  // `done` is called on the loop's thread; with kGone and kForced the Backend does not exist any more.
  void unplug(std::string_view kind, u32 id, Unplug how, std::function<void(Unplugged)> done);

  struct Status {
    std::string kind;
    u32 id = 0;
    State state = State::kUnknown;
    bool unplugging = false;
    std::string problem;  // why the frontend's last set-up was refused, or empty
  };
  std::vector<Status> devices();

  enum CounterIndex : u8 { kConnects, kDisconnects, kRefusals, kBadStates, kRefusedUnplugs, kForcedUnplugs };
  const telemetry::CounterSet& counters() const { return counters_; }

 private:
  struct Request {
    u64 serial;
    std::function<void(Unplugged)> done;
  };
  struct Device {
    std::string kind;
    u32 id = 0;
    std::string backend_path, frontend_path;
    std::unique_ptr<Backend> backend;
    std::function<void()> on_gone;
    State state = State::kUnknown;
    bool connected = false, online = true, gone = false;
    StorePort::WatchId watch = 0;
    std::atomic<bool> queued{false};  // a look at the frontend's state is on its way
    std::vector<Request> waiting;     // for the guest to let go
    std::string problem;
  };
  using DevicePtr = std::shared_ptr<Device>;

  DevicePtr find(std::string_view kind, u32 id) const;
  void write_nodes(const Device& device);
  void make_kind_directory(std::string_view kind);
  void remove_nodes(const Device& device);
  void set_state(Device& device, State state);
  void watch(const DevicePtr& device);
  void frontend_changed(const DevicePtr& device);
  std::optional<State> frontend_state(const Device& device);
  void offer(Device& device);
  void connect(Device& device);
  void disconnect(Device& device);
  void closed(const DevicePtr& device);
  void begin_unplug(const DevicePtr& device);
  void give_up(const DevicePtr& device, u64 serial, Unplug how);
  void finish(const DevicePtr& device, Unplugged result);

  Loop& loop_;
  StorePort& store_;
  const u16 domain_;
  const Nanoseconds patience_;
  telemetry::CounterSet counters_{
      {"connects", "disconnects", "refusals", "bad_states", "refused_unplugs", "forced_unplugs"}};
  // Touched on the loop's thread only.
  std::vector<DevicePtr> devices_;
  u64 next_serial_ = 0;
};

}  // namespace bulkhead::device::xenbus
