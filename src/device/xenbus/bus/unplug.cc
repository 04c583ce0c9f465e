// Taking a device from a running guest: online = 0 and Closing, then the guest's driver lets go and says Closed, as
// when libxl removes a device.
#include <algorithm>

#include "device/xenbus/bus/backend_bus.h"

namespace bulkhead::device::xenbus {

void BackendBus::unplug(std::string_view kind, u32 id, Unplug how, std::function<void(Unplugged)> done) {
  loop_.post([this, kind = std::string{kind}, id, how, done = std::move(done)] {
    const DevicePtr device = find(kind, id);
    if (device == nullptr) return done(Unplugged::kNoSuchDevice);
    const u64 serial = next_serial_++;
    device->waiting.push_back({serial, done});
    begin_unplug(device);
    if (device->gone) return;
    loop_.post_after(patience_, [this, device, serial, how] {
      if (!device->gone) give_up(device, serial, how);
    });
  });
}

void BackendBus::begin_unplug(const DevicePtr& device) {
  const bool first = std::exchange(device->online, false);
  if (first) {
    store_.atomically([&](StorePort& store) {
      store.write(device->backend_path + "/online", "0");
      store.write(device->backend_path + "/state", std::to_string(static_cast<u32>(State::kClosing)));
    });
    device->state = State::kClosing;
  }
  // Where no driver has the device there is nobody who would answer.
  const State frontend = frontend_state(*device).value_or(State::kInitWait);
  if (frontend == State::kInitialising || frontend == State::kClosed || frontend == State::kUnknown) closed(device);
}

void BackendBus::give_up(const DevicePtr& device, u64 serial, Unplug how) {
  const auto request = std::ranges::find(device->waiting, serial, &Request::serial);
  if (how == Unplug::kForce) {
    counters_[kForcedUnplugs].add();
    return finish(device, Unplugged::kForced);
  }
  counters_[kRefusedUnplugs].add();
  const std::function<void(Unplugged)> done = std::move(request->done);
  device->waiting.erase(request);
  done(Unplugged::kRefused);
}

void BackendBus::finish(const DevicePtr& device, Unplugged result) {
  store_.unwatch(device->watch);
  disconnect(*device);
  device->backend.reset();
  device->gone = true;
  std::erase(devices_, device);
  remove_nodes(*device);
  if (device->on_gone) device->on_gone();
  for (const Request& request : std::exchange(device->waiting, {})) request.done(result);
}

}  // namespace bulkhead::device::xenbus
